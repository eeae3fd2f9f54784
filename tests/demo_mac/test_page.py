"""The page's server without a browser: the same answers over HTTP, and requests that wait for each other."""

import threading
from pathlib import Path

import pytest


gradio = pytest.importorskip("gradio", reason="needs gradio: pip install -e .[demo]")

from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from demo_mac.page import build_page, friendly, serve  # noqa: E402
from processing_mac import AudioCaptioningPipeline  # noqa: E402


EXAMPLE = str(Path(__file__).parents[2] / "examples" / "cat.flac")


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu", return_segments=True)


@pytest.fixture
def connect(captioner):
    """Makes clients of a served page."""
    page = build_page(captioner, [])
    address = serve(page, "127.0.0.1", None)
    yield lambda: Client(address, verbose=False, analytics_enabled=False)
    page.close()


def test_answers_over_http(connect, captioner):
    client, sound = connect(), handle_file(EXAMPLE)
    caption, picture = client.predict(sound, "", api_name="/describe")
    assert caption == captioner(EXAMPLE)[0]["caption"] and "<figure" in str(picture)
    ranking = client.predict(sound, "", "a dog\nrain", api_name="/rank")
    assert sorted(row["label"] for row in ranking["confidences"]) == ["a dog", "rain"]


def test_wrong_input_is_a_message_that_runs_no_code():
    def answer():
        raise ValueError("<script>alert(1)</script>.wav: no sound")

    with pytest.raises(gradio.Error) as error:
        friendly(answer)()
    assert error.value.message == "&lt;script&gt;alert(1)&lt;/script&gt;.wav: no sound"
    assert not error.value.print_exception and error.value.duration is None


def test_an_error_of_ours_shows_nothing_of_the_inside(connect, captioner, monkeypatch, capfd):
    monkeypatch.setattr(AudioCaptioningPipeline, "preprocess", lambda *args, **kwargs: {}["secret"])
    with pytest.raises(AppError) as error:
        connect().predict(handle_file(EXAMPLE), "", api_name="/describe")
    assert "secret" not in str(error.value)
    assert "KeyError" in capfd.readouterr().err  # but the log has it


def test_requests_queue(connect, captioner, monkeypatch):
    """Two visitors at once, one model: never two calls at a time."""
    inside, most, lock = [], [], threading.Lock()
    generate = AudioCaptioningPipeline.generate

    def watch(*arguments):
        with lock:
            inside.append(1)
            most.append(len(inside))
        try:
            threading.Event().wait(0.3)
            return generate(*arguments)
        finally:
            inside.pop()

    monkeypatch.setattr(AudioCaptioningPipeline, "generate", watch)
    jobs = [connect().submit(handle_file(EXAMPLE), "", api_name="/describe") for _ in range(3)]
    captions = [job.result(timeout=60)[0] for job in jobs]
    assert len(set(captions)) == 1 and max(most) == 1 and len(most) == 3

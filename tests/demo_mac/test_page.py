"""The page's server without a browser: the same answers over HTTP, and requests that wait for each other."""

import base64
import threading
from pathlib import Path

import pytest


gradio = pytest.importorskip("gradio", reason="needs gradio: pip install -e .[demo]")

import httpx  # noqa: E402
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from demo_mac import limits  # noqa: E402
from demo_mac.live import MAX_LISTENERS  # noqa: E402
from demo_mac.model_facts import ModelFacts  # noqa: E402
from demo_mac.page import build_page, introduce, serve  # noqa: E402
from demo_mac.visits import Answers  # noqa: E402
from processing_mac import AudioCaptioningPipeline  # noqa: E402


EXAMPLE = str(Path(__file__).parents[2] / "examples" / "cat.flac")
FACTS = ModelFacts("mac-test", "1 million parameters", "It knows nothing.")


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


@pytest.fixture
def address(captioner):
    """Where a page is served."""
    page = build_page(captioner, [], FACTS)
    yield serve(page, "127.0.0.1", None)
    page.close()


@pytest.fixture
def connect(address):
    """Makes clients of a served page."""
    return lambda: Client(address, verbose=False, analytics_enabled=False)


def test_answers_over_http(connect, captioner):
    client, sound = connect(), handle_file(EXAMPLE)
    caption, picture = client.predict(sound, "", api_name="/describe")
    assert captioner(EXAMPLE)[0]["caption"] in caption and "<figure" in picture["picture"]
    assert Path(picture["sound"] if isinstance(picture["sound"], str) else picture["sound"]["path"]).suffix == ".flac"
    assert client.predict(sound, "", "a dog\nrain", api_name="/rank").count("<li>") == 2


def test_wrong_input_stands_in_place_of_the_answer(connect):
    caption, picture = connect().predict(None, "", api_name="/describe")
    assert 'class="problem"' in caption and "There is no sound yet" in caption and picture is None
    assert "got 1" in connect().predict(handle_file(EXAMPLE), "", "a dog", api_name="/rank")


def test_an_error_of_ours_shows_nothing_of_the_inside(connect, monkeypatch, capfd):
    monkeypatch.setattr(AudioCaptioningPipeline, "preprocess", lambda *args, **kwargs: {}["secret"])
    with pytest.raises(AppError) as error:
        connect().predict(handle_file(EXAMPLE), "", api_name="/describe")
    assert "secret" not in str(error.value)
    assert "KeyError" in capfd.readouterr().err  # but the log has it


def test_requests_queue(connect, captioner, monkeypatch):
    """Three visitors at once, one model: never two calls at a time."""
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


def test_an_upload_beyond_the_limits_is_told_why(address, monkeypatch):
    monkeypatch.setattr(limits, "MAX_STORED_BYTES", 100)
    answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("a.wav", bytes(1000))})
    assert answer.status_code == 507 and "try again in an hour" in answer.text
    monkeypatch.undo()
    assert httpx.post(f"{address}gradio_api/upload", files={"files": ("a.wav", bytes(1000))}).status_code == 200


def labels_of(page) -> set[str]:
    return {block.label for block in page.blocks.values() if isinstance(block, gradio.Textbox) and block.visible}


def test_a_prompt_is_asked_for_where_the_model_knows_more_than_one(captioner):
    assert "Prompt" not in labels_of(build_page(captioner, [], FACTS))
    captioner.processor.knows_prompts = True
    assert "Prompt" in labels_of(build_page(captioner, [], FACTS))


def test_the_page_opens_with_an_example(captioner):
    page = build_page(captioner, [EXAMPLE], FACTS)
    caption, picture = (
        next(block.value for block in page.blocks.values() if block.elem_id == name) for name in ("caption", "picture")
    )
    assert "For example: cat" in caption and captioner(EXAMPLE)[0]["caption"] in caption
    assert "<figure" in picture["picture"]


def test_the_head_names_the_model():
    assert "<b>mac-test</b>" in introduce(FACTS) and "It knows nothing." in introduce(FACTS)
    assert "<script" not in introduce(ModelFacts("<script>", "<script>", "<script>"))


def chunk(samples, rate: int = 16_000, first: bool = False):
    """What the page sends of a microphone's samples."""
    data = base64.b64encode((samples * 32_767).astype("<i2").tobytes()).decode()
    return gradio.EventData(None, {"samples": data, "rate": rate, "first": first})


def test_a_microphone_is_heard_to_its_end(captioner, sound):
    answers, listener = Answers(captioner), None
    for first in (True, False):
        text, listener = answers.listen(listener, chunk(sound(6), first=first))
    assert text.count("<li>") == len(listener.segments) > 0
    text, listener = answers.end(listener)
    assert 'download="live.srt"' in text and listener is None
    assert 'class="problem"' in answers.listen(None, chunk(sound(6), rate=1, first=True))[0]


def test_a_microphone_that_finds_no_room_is_told_so(captioner, sound):
    answers, event = Answers(captioner), chunk(sound(1), first=True)
    listeners = [answers.listen(None, event)[1] for _ in range(MAX_LISTENERS)]
    text, listener = answers.listen(None, event)
    assert "microphones at a time" in text and "microphones at a time" in answers.end(listener)[0]
    answers.end(listeners[0])
    assert 'class="problem"' not in answers.listen(None, event)[0]


def test_a_page_that_is_loaded_anew_waits_for_its_turn(captioner, sound):
    """The room is one for all visitors: while one of them is heard, nobody leaves or comes."""
    answers, found = Answers(captioner), []
    _, old = answers.listen(None, chunk(sound(1), first=True))
    again = threading.Thread(target=lambda: found.append(answers.listen(old, chunk(sound(1), first=True))[1]))
    with answers.lock:
        again.start()
        again.join(0.3)
        assert again.is_alive() and list(answers.room.heard) == [old]
    again.join(30)
    [new] = found
    assert new is not old and list(answers.room.heard) == [new]

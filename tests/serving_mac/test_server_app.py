"""`mac-serve` as clients meet it: OpenAI's own package, curl, and connections that break."""

import errno
import json
import re
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import openai
import pytest

from processing_mac.free_cores_mac import FreeCores


def test_openai_client_gets_what_the_command_says(serve, sounds, captioner, hear):
    expected = [hear(file) for file in sounds]
    assert expected[-1]["caption"] != captioner(str(sounds[-1]))[0]["caption"], (
        "it has more windows than were trained on"
    )
    with serve() as served:
        assert [model.id for model in served.client.models.list()] == ["tiny"]
        assert served.client.models.retrieve("tiny").owned_by == "mac"
        for file, record in zip(sounds, expected, strict=True):
            assert served.ask(file).text == record["caption"]
        assert served.ask(sounds[0], response_format="text") == expected[0]["caption"] + "\n"
        assert (
            served.ask(sounds[0].read_bytes(), prompt="Hi", language="en", temperature=0).text
            == (captioner(str(sounds[0]), prompt="Hi")[0]["caption"])
        )
        told = served.ask(sounds[-1], response_format="verbose_json", timestamp_granularities=["segment"])
        segments = [{"start": one.start, "end": one.end, "caption": one.text} for one in told.segments]
        assert segments == expected[-1]["segments"] and len(segments) == 2
        assert (told.text, told.duration, told.usage.seconds) == (expected[-1]["caption"], 12.0, 12)


def test_what_is_missing_of_a_recording_is_said_to_who_sent_it(serve, sounds, recwarn):
    """Beside others that are whole, and in every format that has a place for it."""
    whole = sounds[0].read_bytes()
    cut = whole[: len(whole) // 2]
    with serve() as served:
        files = [("whole.wav", whole), ("cut.wav", cut)] * 4
        with ThreadPoolExecutor(len(files)) as threads:
            told = list(threads.map(served.ask, files))
        streamed = list(served.ask(files[1], stream=True))[-1]
        verbose = served.ask(files[1], response_format="verbose_json")
        assert served.ask(files[1], response_format="text") == f"{verbose.text}\n"
    losses = [answer.model_extra.get("warnings") for answer in (*told, streamed, verbose)]
    assert losses[:-2:2] == [None] * 4
    for loss in (*losses[1:-2:2], *losses[-2:]):
        assert len(loss) == 1 and re.fullmatch(r"cut.wav: .* that it states are there .*", loss[0])
    assert not [one for one in recwarn if "states" in str(one.message)]


def test_threads_are_chosen_before_each_batch_in_the_thread_of_the_model(serve, sounds, monkeypatch):
    """Threads of torch belong to the thread that sets them."""
    taken = []
    monkeypatch.setattr(FreeCores, "take", lambda self: taken.append(threading.current_thread().name))
    with serve() as served:
        for file in sounds[:2]:
            served.ask(file)
        assert served.batches == [1, 1]
    assert len(taken) == 2 and all(name.startswith("model") for name in taken)


def test_a_model_of_long_recordings_hears_them_whole(serve, sounds, captioner):
    captioner.processor.trained_windows = 2
    expected = captioner(str(sounds[-1]), return_segments=True)[0]
    with serve() as served:
        told = served.ask(sounds[-1], response_format="verbose_json")
        assert served.ask(sounds[-1]).text == told.text == expected["caption"]
    assert [one.text for one in told.segments] == [one["caption"] for one in expected["segments"]]


def test_a_stream_brings_the_caption_piece_by_piece(serve, sounds, hear):
    with serve() as served:
        for file in sounds:
            *deltas, done = served.ask(file, stream=True)
            assert {event.type for event in deltas} == {"transcript.text.delta"}
            assert done.type == "transcript.text.done" and done.text == hear(file)["caption"]
            assert "".join(event.delta for event in deltas) == done.text
            assert len(deltas) > 1 or file == sounds[-1]  # its two windows are captioned together
        served.wait_until_empty()


def test_beams_stream_the_caption_at_once(serve, sounds, captioner):
    with serve(num_beams=2) as served:
        *deltas, done = served.ask(sounds[0], stream=True)
        expected = captioner(str(sounds[0]), num_beams=2)[0]["caption"]
        assert [event.delta for event in deltas] == [done.text] == [expected]


def test_subtitles(serve, sounds, captioner):
    [first, _] = captioner(str(sounds[-1]), return_segments=True)[0]["segments"]
    with serve() as served:
        srt, vtt = (served.ask(sounds[-1], response_format=kind) for kind in ("srt", "vtt"))
    assert "00:00:00,000 --> 00:00:10,240" in srt and first["caption"] in srt
    assert vtt.startswith("WEBVTT") and "00:10.240 --> " in vtt


def test_curl(serve, sounds, captioner):
    def curl(*arguments: str) -> str:
        return subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, check=True).stdout

    with serve() as served:
        address = f"{served.url}/v1/audio/transcriptions"
        form = ["-F", f"file=@{sounds[0]}", "-F", "model=tiny"]
        caption = captioner(str(sounds[0]))[0]["caption"]
        assert json.loads(curl(*form, address))["text"] == caption
        events = curl("-N", *form, "-F", "stream=true", address)
        assert json.loads(events.strip().split("\n\n")[-1].removeprefix("data: "))["text"] == caption
        assert json.loads(curl(f"{served.url}/health"))["status"] == "ok"
        assert json.loads(curl(f"{served.url}/nothing"))["error"]["code"] == "not_found"
        assert json.loads(curl(address))["error"]["code"] == "method_not_allowed"
        assert json.loads(curl("-d", "x=1", address))["error"]["code"] == "invalid_form"
        counted = curl(f"{served.url}/metrics")
        assert 'mac_requests_total{status="200"} 2.0' in counted and "mac_audio_seconds_total 2.0" in counted


def test_requests_that_come_together_are_one_batch(serve, sounds, hear):
    """Lengths, prompts and formats differ; every caption is the one that its recording gets alone."""
    asked = [(file, prompt, kind) for file in sounds for prompt, kind in [("", "json"), ("Hi", "verbose_json")]]
    alone = [hear(file, prompt or None)["caption"] for file, prompt, _ in asked]
    with serve(max_batch=16, batch_wait_ms=1500) as served, ThreadPoolExecutor(len(asked)) as pool:
        told = pool.map(lambda item: served.ask(item[0], prompt=item[1], response_format=item[2]).text, asked)
        assert list(told) == alone
    assert len(served.batches) < 4 and max(served.batches) > 4


FIELDS = [
    ({"model": "whisper-1"}, 404, "model_not_found", "model"),
    ({"response_format": "diarized_json"}, 400, "invalid_value", "response_format"),
    ({"response_format": "text", "stream": True}, 400, "invalid_value", "response_format"),
    ({"language": "de"}, 400, "invalid_value", "language"),
    ({"temperature": 1.5}, 400, "invalid_value", "temperature"),
    ({"temperature": float("nan")}, 400, "invalid_value", "temperature"),
    ({"prompt": "<|audio|>"}, 400, "invalid_value", "prompt"),
    ({"prompt": "x" * 2001}, 400, "invalid_value", "prompt"),
    ({"timestamp_granularities": ["word"]}, 400, "invalid_value", "timestamp_granularities[]"),
    ({"include": ["logprobs"]}, 400, "unknown_field", "include[]"),
    ({"extra_body": {"stream": "perhaps"}}, 400, "invalid_value", "stream"),
    ({"file": b"no sound"}, 400, "invalid_audio", "file"),
    ({"file": b""}, 400, "invalid_audio", "file"),
]


def test_what_cannot_be_done_is_refused(serve, sounds):
    with serve() as served:
        for fields, status, code, param in FIELDS:
            with pytest.raises(openai.APIStatusError) as caught:
                served.ask(**{"file": sounds[0], **fields})
            error = caught.value
            assert (error.status_code, error.code, error.param) == (status, code, param), fields
        assert served.ask(sounds[0]).text
        served.wait_until_empty()


def test_a_name_is_never_a_path(serve, sounds, tmp_path):
    (tmp_path / "secret.wav").write_bytes(sounds[0].read_bytes())
    with serve() as served:
        for name in (f"{tmp_path}/secret.wav", "../secret.wav", "http://127.0.0.1:1/secret.wav", "..\\secret.wav"):
            with pytest.raises(openai.BadRequestError, match=r"400 - secret\.wav: cannot be read as audio"):
                served.ask((name, b"no sound at all"))


def test_limits_of_size_and_length(serve, sounds):
    with serve(max_megabytes=0.15, max_seconds=2.5) as served:
        assert served.ask(sounds[2]).text  # 2 s, 64 kB
        with pytest.raises(openai.BadRequestError, match=r"2\.wav: longer than 2\.5 s"):
            served.ask(sounds[1])
        with pytest.raises(openai.APIStatusError, match=r"longer than 0\.15 MB") as caught:
            served.ask(sounds[3])
        assert caught.value.status_code == 413 and caught.value.code == "file_too_large"
        # In chunks, without a length in the head.
        command = ["curl", "-sS", "-H", "Transfer-Encoding: chunked", "-F", f"file=@{sounds[3]}", "-F", "model=tiny"]
        told = subprocess.run([*command, f"{served.url}/v1/audio/transcriptions"], capture_output=True, check=True)
        assert json.loads(told.stdout)["error"]["code"] == "file_too_large"
        served.wait_until_empty()


def test_a_full_disk(serve, sounds, monkeypatch):
    async def fail(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with serve() as served:
        with monkeypatch.context() as patch:
            patch.setattr("starlette.datastructures.UploadFile.write", fail)
            with pytest.raises(openai.InternalServerError, match=r"cannot be kept \(No space left") as caught:
                served.ask(sounds[0])
        assert caught.value.status_code == 507
        assert served.ask(sounds[0]).text


@pytest.fixture
def hold(captioner, monkeypatch):
    """Makes the model wait until the event is set."""
    release, generate = threading.Event(), type(captioner).generate

    def wait(self, *arguments):
        release.wait(20)
        return generate(self, *arguments)

    monkeypatch.setattr(type(captioner), "generate", wait)
    return release


def test_a_full_server_says_when_to_come_again(serve, sounds, hold):
    with serve(max_requests=2, max_batch=1) as served, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(served.ask, file) for file in sounds[:2]]
        while served.service.inside < 2:
            time.sleep(0.01)
        with pytest.raises(openai.RateLimitError, match="2 requests are inside") as caught:
            served.ask(sounds[2])
        assert int(caught.value.response.headers["Retry-After"]) >= 1
        hold.set()
        assert all(answer.result().text for answer in waiting)
        assert served.ask(sounds[2]).text


def test_a_request_that_takes_too_long(serve, sounds, hold):
    with serve(timeout_seconds=2) as served:
        with pytest.raises(openai.InternalServerError, match=r"no answer within 2 s") as caught:
            served.ask(sounds[0])
        assert caught.value.status_code == 504
        with pytest.raises(openai.APIError, match=r"no answer within 2 s"):
            list(served.ask(sounds[0], stream=True))
        hold.set()


def begin_upload(served, file, share: float = 1.0, fields: bytes = b"") -> socket.socket:
    """Open a connection and send the first part of a request."""
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n' + fields
    form += b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = form + file.read_bytes() + b"\r\n--b--\r\n"
    head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    connection = socket.create_connection(("127.0.0.1", served.port))
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    connection.sendall(whole[: round(share * len(whole))])
    return connection


def test_broken_uploads_hurt_nobody_else(serve, sounds, captioner):
    with serve(timeout_seconds=5) as served:
        stalled = begin_upload(served, sounds[0], 0.5)
        for _ in range(5):
            begin_upload(served, sounds[3], 0.7).close()
        assert served.ask(sounds[0]).text == captioner(str(sounds[0]))[0]["caption"]
        stalled.settimeout(30)
        assert b"upload_timeout" in stalled.makefile("rb").read(400)
        stalled.close()
        served.wait_until_empty()


STREAM = b'--b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'


@pytest.mark.parametrize("fields", [b"", STREAM], ids=["whole", "stream"])
def test_a_client_that_goes_away_frees_its_place(fields, serve, sounds, hold):
    with serve(max_requests=3, max_batch=1) as served:
        gone = [begin_upload(served, file, fields=fields) for file in sounds[:3]]
        while served.service.inside < 3:
            time.sleep(0.01)
        for connection in gone:
            connection.close()
        served.wait_until_empty()
        hold.set()
        assert served.ask(sounds[0]).text
    assert len(served.batches) <= 2  # the one that was begun, and the last; nobody's are not captioned


def test_the_token(serve, sounds):
    with serve(token="right") as served:
        assert served.ask(sounds[0]).text
        for token in ("wrong", "righ", "ri\u00e4ht".encode().decode("latin-1")):
            request = Request(f"{served.url}/v1/models", headers={"Authorization": f"Bearer {token}"})
            with pytest.raises(OSError, match="401"):
                urlopen(request)
        client = served.client.with_options(api_key="wrong")
        with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer"):
            client.audio.transcriptions.create(model="tiny", file=sounds[0])
        for path in ("/v1/models", "/v1/models/tiny", "/metrics"):
            with pytest.raises(OSError, match="401"):
                urlopen(served.url + path)
        assert urlopen(f"{served.url}/health").status == 200


def test_a_fault_of_the_model_is_told_without_its_text(serve, sounds, captioner, monkeypatch, caplog):
    def fail(self, *arguments):
        raise RuntimeError("secret")

    with serve() as served:
        with monkeypatch.context() as patch:
            patch.setattr(type(captioner), "generate", fail)
            with pytest.raises(openai.InternalServerError) as caught:
                served.ask(sounds[0])
            assert caught.value.code == "internal_error" and not re.search("secret|Traceback", str(caught.value))
        assert served.ask(sounds[0]).text
        served.wait_until_empty()

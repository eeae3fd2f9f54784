"""`mac-caption --stream`: real pipes and a real server that breaks, and lines as they come."""

import http.server
import io
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from processing_mac import AudioCaptioningPipeline, stream_cli_mac
from processing_mac.cli_mac import main
from processing_mac.stream_cli_mac import caption_stream, read_address


@pytest.fixture
def run(model, processor, monkeypatch):
    """Captions a source; bytes come on standard input."""

    def run(source: str, data: bytes = b"", **fields) -> int:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
        captioner = AudioCaptioningPipeline(model, processor=processor, device="cpu")
        options = {"stream": source, "prompt": None, "num_beams": None, "cut": "every", "format": "jsonl"}
        options |= {"reconnect": False, "url_timeout": 1}
        return caption_stream(captioner, SimpleNamespace(**options | fields))

    return run


def wav(clip: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, clip, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def test_pcm_and_wav_on_a_pipe_say_the_same(run, sound, capsys) -> None:
    clip = sound(13)
    pcm = (clip * 32_767).astype("<i2").tobytes()
    lines = []
    for data in (pcm + b"\0", wav(clip)):
        assert run("-", data) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        lines.append([(row["start"], row["end"], row["caption"]) for row in found])
        assert found[-1]["end"] == 13 and "T" in found[0]["time"]
    assert lines[0] == lines[1]
    assert run("-", pcm, format=None) == 0 and " s\t" in capsys.readouterr().out


def test_no_bytes_and_no_microphone_are_said(run, capsys) -> None:
    assert run("-") == 1 and "no sound came" in capsys.readouterr().err
    assert run("mic") == 1 and "mic: " in capsys.readouterr().err


@pytest.fixture
def server(sound):
    """Serves three seconds of sound, and breaks off the second time."""
    content, asked = wav(sound(3)), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path == "/radio" else 404)
            self.end_headers()
            self.wfile.write(content if self.path == "/radio" else b"")

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", asked=asked)
    server.shutdown()


def test_a_server_that_ends_is_asked_again(run, server, capsys, monkeypatch) -> None:
    assert run(f"{server.url}/radio") == 0
    assert json.loads(capsys.readouterr().out)["end"] == 3
    monkeypatch.setattr(stream_cli_mac, "RETRY_SECONDS", (0,))
    blocks, heard = read_address(f"{server.url}/radio", 1, True), 0
    while heard < 7 * 16_000:
        heard += len(next(blocks))
    assert len(server.asked) == 4 and "opening it again" in capsys.readouterr().err
    assert run(f"{server.url}/nothing") == 1 and "404" in capsys.readouterr().err


def test_ctrl_c_ends_with_what_was_heard(run, sound, capsys, monkeypatch) -> None:
    def interrupted(options):
        yield sound(2)
        raise KeyboardInterrupt

    monkeypatch.setattr(stream_cli_mac, "read_source", interrupted)
    assert run("-") == 0 and json.loads(capsys.readouterr().out)["end"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.wav", "--stream", "-"],
        ["--stream", "-", "--format", "srt"],
        ["a.wav", "--reconnect"],
        ["a.wav", "--cut", "change"],
    ],
)
def test_wrong_use(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and "--stream" in capsys.readouterr().err

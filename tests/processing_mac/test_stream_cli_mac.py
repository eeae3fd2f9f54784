"""`mac-caption --stream`: real pipes and a real server that breaks, and lines as they come."""

import errno
import http.server
import io
import json
import os
import re
import signal
import socket
import sys
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile

from processing_mac import AudioCaptioningPipeline, stream_cli_mac
from processing_mac.cli_mac import main
from processing_mac.stream_cli_mac import (
    Onwards,
    caption_stream,
    is_sound_file,
    read_address,
    read_pipe,
    read_source,
)


@pytest.fixture
def run(model, processor, monkeypatch):
    """Captions a source; bytes come on standard input."""

    def run(source: str, data: bytes = b"", **fields) -> int:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
        captioner = AudioCaptioningPipeline(model, processor=processor, device="cpu")
        options = {"stream": source, "prompt": None, "num_beams": None, "cut": "every", "format": "jsonl"}
        options |= {"reconnect": False, "url_timeout": 1}
        output = fields.pop("output", None)
        return caption_stream(captioner, SimpleNamespace(**options | fields), output)

    return run


def wav(clip: np.ndarray, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, clip, 16_000, format="WAV", subtype=subtype)
    return file.getvalue()


def pcm(clip: np.ndarray) -> bytes:
    return (clip * 32_767).astype("<i2").tobytes()


def test_pcm_and_wav_on_a_pipe_say_the_same(run, sound, capsys) -> None:
    clip, lines = sound(13), []
    for data in (pcm(clip) + b"\0", wav(clip)):
        assert run("-", data) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        lines.append([(row["start"], row["end"], row["caption"]) for row in found])
        assert found[-1]["end"] == 13 and "T" in found[0]["time"]
    assert lines[0] == lines[1]
    assert run("-", pcm(clip), format=None) == 0 and " s\t" in capsys.readouterr().out


def test_what_is_no_sound_is_said(run, sound, monkeypatch, tmp_path, capsys) -> None:
    def told(*arguments) -> str:
        assert run(*arguments) == 1
        return capsys.readouterr().err

    broken = sound(3)
    broken[40_000] = np.nan
    assert "-: no sound came" in told("-")
    assert "-: 3 samples came; expected at least 400 (25 ms)" in told("-", b"hello\n")
    assert "standard input: has NaN or Inf at sample 40000" in told("-", wav(broken, "FLOAT"))
    assert "no sound" in told("-", wav(broken[:0]))
    assert "standard input: cannot be read as audio" in told("-", b"RIFF" + b"nonsense" * 9)
    assert "mic: " in told("mic")
    assert "none.wav: no such audio file" in told(str(tmp_path / "none.wav"))
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", None)
        with pytest.raises(ValueError, match="standard input: is closed"):
            list(read_source(SimpleNamespace(stream="-")))
    with pytest.raises(ValueError, match=r"standard input: cannot be read .*Input/output error"):
        list(read_pipe(BrokenPipe()))


@pytest.fixture
def pipe():
    """Makes a real pipe that bytes go through a few at a time, as from a slow program."""
    ends = []

    def pipe(data: bytes, size: int):
        reading, writing = os.pipe()

        def write() -> None:
            with open(writing, "wb", buffering=0) as file, suppress(BrokenPipeError):
                for start in range(0, len(data), size):
                    file.write(data[start : start + size])

        ends.append(os.fdopen(reading, "rb"))
        threading.Thread(target=write, daemon=True).start()
        return ends[-1]

    yield pipe
    for end in ends:
        end.close()


def encoded(clip: np.ndarray, format: str, codec: str, rate: int, **options: str) -> bytes:
    """Encode (samples,) with FFmpeg, with no header in front of the frames where the format needs none."""
    file = io.BytesIO()
    with av.open(file, "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((clip * 32_767).astype("<i2")[None], "s16", "mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.codec_context.frame_size or None)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "codec", "rate", "starts"),
    [
        ("mp3", "libmp3lame", 44_100, b"\xff\xfb"),
        ("mp3", "libmp3lame", 16_000, b"\xff\xf3"),
        ("mp3", "libmp3lame", 8_000, b"\xff\xe3"),
        ("mp2", "mp2", 48_000, b"\xff\xfd"),
        ("adts", "aac", 16_000, b"\xff\xf1"),
        ("ac3", "ac3", 44_100, b"\x0bw"),
        ("ac3", "ac3", 32_000, b"\x0bw"),
        ("eac3", "eac3", 48_000, b"\x0bw"),
        ("ipod", "aac", 16_000, b"\0\0\0"),
    ],
)
def test_files_without_a_name_or_a_header_are_heard_as_sound(pipe, sound, format, codec, rate, starts) -> None:
    options = {"mp3": {"id3v2_version": "0"}, "ipod": {"movflags": "frag_keyframe+empty_moov"}}.get(format, {})
    data = encoded(sound(2, rate=rate), format, codec, rate, **options)
    assert data.startswith(starts)
    for size in (1, 100_000):
        heard = np.concatenate(list(read_pipe(pipe(data, size))))
        assert len(heard) / 16_000 == pytest.approx(2, abs=0.2)


def test_an_mp4_with_its_index_last_is_heard_from_a_file_and_explained_on_a_pipe(pipe, sound, tmp_path) -> None:
    data = encoded(sound(2), "ipod", "aac", 16_000)
    (tmp_path / "a").write_bytes(data)
    with open(tmp_path / "a", "rb") as file:
        assert sum(map(len, read_pipe(file))) / 16_000 == pytest.approx(2, abs=0.2)
    with pytest.raises(ValueError, match=r"standard input: cannot be read .*index comes last"):
        list(read_pipe(pipe(data, 1)))


def test_noise_that_begins_as_a_frame_stays_pcm(pipe) -> None:
    """Also full-scale noise and steady values, whose bytes are those of a header or all the same."""
    random = np.random.default_rng(0)
    for start in (b"\xff\xfb\x90\x00", b"\xff\xf3\x40\xc4", b"\xff\xf1\x60\x40\x10\x00", b"\x0bw\0\0\x14\x40"):
        for _ in range(300):
            noise = random.integers(0, 256, 6_000, np.uint8).tobytes()
            assert not is_sound_file(Onwards(io.BytesIO(start + noise)))
    for value in range(-32_768, 32_768, 7):
        assert not is_sound_file(Onwards(io.BytesIO(np.full(3_000, value, "<i2").tobytes())))
    loud = np.where(random.random(8_000) < 0.5, -32_768, 32_767).astype("<i2")
    np.testing.assert_array_equal(
        np.concatenate(list(read_pipe(pipe(loud.tobytes(), 999)))), loud / np.float32(32_768)
    )


class BrokenPipe:
    def read1(self, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


def test_a_rate_that_changes_is_said_in_a_line(run, sound, capsys) -> None:
    """FFmpeg hears the first of two Vorbis streams with different rates."""
    data = io.BytesIO()
    for rate in (16_000, 22_050):
        part = io.BytesIO()
        soundfile.write(part, sound(2, rate=rate), rate, format="OGG", subtype="VORBIS")
        data.write(part.getvalue())
    assert run("-", data.getvalue()) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["end"] == pytest.approx(2, abs=0.1)
    assert told.err.startswith("standard input: ") and "cannot be read" in told.err and ".py" not in told.err


@pytest.fixture
def microphone(monkeypatch):
    """Stands for sounddevice: calls back with blocks as soon as it is opened, and is silent after the last one."""
    fake = SimpleNamespace(PortAudioError=type("PortAudioError", (Exception,), {}), blocks=[], active=True, status="")

    class InputStream:
        def __init__(self, rate, size, channels, dtype, callback):
            assert (rate, channels, dtype) == (16_000, 1, "float32")
            self.active, self.callback = fake.active, callback

        def __enter__(self):
            for block in fake.blocks:
                self.callback(block[:, None], len(block), None, fake.status)
            return self

        def __exit__(self, *error):
            self.active = False

    fake.InputStream = InputStream
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(stream_cli_mac, "MICROPHONE_SECONDS", 0.1)
    return fake


@pytest.mark.parametrize(("active", "told"), [(True, "gave no sound for 0.1 s"), (False, "stopped")])
def test_an_unplugged_microphone_ends_with_what_was_heard(run, sound, microphone, capsys, active, told) -> None:
    microphone.active, microphone.blocks = active, [*np.split(sound(3), 15)]
    assert run("mic") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["end"] == 3
    assert err == f"mac-caption: mic: {told}; is it still plugged in?\n"


def test_a_model_that_cannot_keep_up_loses_a_minute_and_says_it(microphone, capsys) -> None:
    microphone.blocks = [np.full(3_200, place, np.float32) for place in range(310)]
    microphone.status = "input overflow"
    blocks = read_source(SimpleNamespace(stream="mic"))  # read for the first time when all 62 s are there
    assert next(blocks) is None
    assert [next(blocks)[0] for _ in range(10)] == [*range(300, 310)]
    with pytest.raises(ValueError, match="plugged in"):
        next(blocks)
    assert capsys.readouterr().err.splitlines() == [
        "mac-caption: mic: the system lost some samples (input overflow)",
        "mac-caption: mic: the model cannot keep up, 60 s were left out",
    ]


@pytest.fixture
def server(sound):
    """Serves three seconds of sound, or five of nine and then no more, or nothing."""
    contents, asked = {"/radio": wav(sound(3)), "/silent": b""}, []
    contents |= {"/stalls": wav(sound(9))[: 44 + 32_000 * 5], "/dead": b""}
    stalls, stalled = ("/stalls", "/dead"), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path in contents else 404)
            self.end_headers()
            self.wfile.write(contents.get(self.path, b""))
            if self.path in stalls:
                stalled.wait(20)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", asked=asked)
    stalled.set()
    server.shutdown()


def test_a_server_that_ends_is_asked_again(run, server, capsys, monkeypatch) -> None:
    assert run(f"{server.url}/radio") == 0
    assert json.loads(capsys.readouterr().out)["end"] == 3
    monkeypatch.setattr(stream_cli_mac, "RETRY_SECONDS", (0,))
    blocks, heard, gaps = read_address(f"{server.url}/radio", 1, True), 0, 0
    while heard < 7 * 16_000:
        block = next(blocks)
        heard, gaps = heard + (0 if block is None else len(block)), gaps + (block is None)
    assert len(server.asked) == 4 and gaps == 2 and "opening it again" in capsys.readouterr().err
    assert run(f"{server.url}/nothing") == 1 and "404" in capsys.readouterr().err
    assert run(f"{server.url}/silent") == 1 and f"{server.url}/silent: " in capsys.readouterr().err


def test_a_server_that_is_not_there_is_told_in_a_line(run, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    for scheme in ("http", "HTTP"):
        assert run(f"{scheme}://{address}/x") == 1
        told = capsys.readouterr().err
        assert re.fullmatch(rf"mac-caption: {scheme}://{address}/x: (\[Errno \d+\] )?Connection refused\n", told)


def test_a_server_that_stalls_is_told_with_all_that_it_sent(run, server, capsys) -> None:
    assert run(f"{server.url}/stalls", url_timeout=0.5) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["end"] == 5
    assert f"mac-caption: {server.url}/stalls: stalled, no byte came for 0.5 s\n" in err
    assert run(f"{server.url}/dead", url_timeout=0.5) == 1
    assert capsys.readouterr().err == f"mac-caption: {server.url}/dead: stalled, no byte came for 0.5 s\n"


def test_what_was_missed_begins_a_segment_and_moves_the_clock(run, sound, capsys, monkeypatch) -> None:
    hour = datetime(2026, 1, 1, 12)
    times = iter([hour, hour, hour + timedelta(minutes=10)])  # at the start, at the first block, and after the gap

    monkeypatch.setattr(stream_cli_mac, "datetime", SimpleNamespace(now=lambda: next(times)))
    monkeypatch.setattr(stream_cli_mac, "read_source", lambda options: (part for part in (sound(2), None, sound(4))))
    assert run("http://radio") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["start"], first["end"], second["start"], second["end"]) == (0, 2, 2, 6)
    assert (first["time"], second["time"]) == ("2026-01-01T11:59:58", "2026-01-01T12:09:56")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_what_was_heard(end, run, sound, capsys, monkeypatch) -> None:
    def interrupted(options):
        yield sound(2)
        signal.raise_signal(end)
        yield sound(2)

    before = signal.getsignal(signal.SIGTERM)
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
    monkeypatch.setattr(stream_cli_mac, "read_source", interrupted)
    try:
        assert run("-") == 0 and json.loads(capsys.readouterr().out)["end"] == 2
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.wav", "--stream", "-"],
        ["a.wav", "--reconnect"],
        ["a.wav", "--cut", "change"],
    ],
)
def test_wrong_use(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and "--stream" in capsys.readouterr().err

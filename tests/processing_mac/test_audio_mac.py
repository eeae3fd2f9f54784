"""Everything that a user may call audio becomes the same waveform, or an error that names it."""

import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset

from processing_mac import MacFeatureExtractor
from processing_mac.audio_mac import load_waveform


FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_24"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


@pytest.fixture
def wav(tmp_path, sound) -> Path:
    """Two seconds at 16 kHz, stored as floats."""
    path = tmp_path / "dog.wav"
    soundfile.write(path, sound(2), 16_000, subtype="FLOAT")
    return path


@pytest.fixture
def server(wav) -> Iterator[str]:
    """The address of a web server on this machine that serves the folder of `wav`."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(wav.parent)))
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "dict path", "dict bytes"])
def test_every_kind_of_file(kind, wav, sound):
    audio = {
        "str": str(wav),
        "path": wav,
        "bytes": wav.read_bytes(),
        "dict path": {"path": str(wav), "bytes": None},
        "dict bytes": {"path": "elsewhere.wav", "bytes": wav.read_bytes()},
    }[kind]
    waveform = load_waveform(audio)
    assert waveform.dtype == np.float32 and np.array_equal(waveform, sound(2))


def test_a_url(server, sound):
    assert np.array_equal(load_waveform(f"{server}/dog.wav"), sound(2))


@pytest.mark.parametrize("kind", ["numpy", "float64", "torch", "bfloat16", "list", "array", "raw", "torchcodec"])
def test_every_kind_of_array(kind, sound):
    samples = torch.from_numpy(sound(1)).bfloat16().float().numpy()  # values that bfloat16 can hold
    audio = {
        "numpy": samples,
        "float64": samples.astype(np.float64),
        "torch": torch.from_numpy(samples).requires_grad_(),
        "bfloat16": torch.from_numpy(samples).bfloat16(),
        "list": samples.tolist(),
        "array": {"array": samples, "sampling_rate": 16_000},
        "raw": {"raw": samples.tolist(), "sampling_rate": 16_000},
        "torchcodec": decoded_row(samples),
    }[kind]
    rate = None if kind in ("array", "raw", "torchcodec") else 16_000
    assert np.array_equal(load_waveform(audio, rate), samples)


def decoded_row(samples: np.ndarray) -> SimpleNamespace:
    """What `datasets` gives for a row that torchcodec decodes: samples are (channels, samples)."""
    decoded = SimpleNamespace(data=torch.from_numpy(samples).expand(2, -1), sample_rate=16_000)
    return SimpleNamespace(get_all_samples=lambda: decoded)


def test_an_undecoded_row_of_datasets(wav, sound):
    rows = Dataset.from_dict({"audio": [str(wav)]}).cast_column("audio", Audio(decode=False))
    embedded = Dataset.from_dict({"audio": [{"path": "dog.wav", "bytes": wav.read_bytes()}]})
    for row in (rows[0], embedded[0]):
        assert np.array_equal(load_waveform(row["audio"]), sound(2))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("named", [True, False], ids=["file", "bytes"])
def test_formats(suffix, named, tmp_path, sound):
    path = tmp_path / f"DOG.{suffix.upper()}"
    container, subtype = FORMATS[suffix]
    soundfile.write(path, sound(2, rate=48_000), 48_000, format=container, subtype=subtype)
    waveform = load_waveform(path if named else path.read_bytes())
    assert len(waveform) == pytest.approx(32_000, abs=2_000)  # encoders pad
    assert same_spectrum(waveform, sound(2))


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 192_000])
def test_sampling_rates(rate, sound):
    waveform = load_waveform(sound(2, rate=rate), rate)
    assert len(waveform) == pytest.approx(32_000, abs=1)
    assert same_spectrum(waveform, sound(2))


def same_spectrum(waveform: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two clips of the same tone have it at the same frequency and about as loud."""
    spectra = [np.abs(np.fft.rfft(clip[: len(expected)], n=len(expected))) for clip in (waveform, expected)]
    peaks = [int(spectrum.argmax()) for spectrum in spectra]
    return abs(peaks[0] - peaks[1]) <= 2 and 0.8 < spectra[0].max() / spectra[1].max() < 1.25


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("order", ["samples first", "channels first"])
def test_channels_are_averaged_on_either_axis(channels, order, sound):
    stack = np.stack([sound(1, seed) for seed in range(channels)], axis=1)
    waveform = load_waveform(stack if order == "samples first" else stack.T, 16_000)
    assert np.allclose(waveform, stack.mean(axis=1), atol=1e-7)


def test_a_file_with_six_channels(tmp_path, sound):
    stack = np.stack([sound(1, seed) for seed in range(6)], axis=1)
    soundfile.write(tmp_path / "surround.wav", stack, 16_000, subtype="FLOAT")
    assert np.allclose(load_waveform(tmp_path / "surround.wav"), stack.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_pcm_integers_are_scaled(dtype, kind, sound):
    pcm = np.round(sound(1) * np.iinfo(dtype).max).astype(dtype)
    assert np.allclose(load_waveform(kind(pcm), 16_000), sound(1), atol=1e-4)


@pytest.mark.parametrize("dtype", [">i2", ">f4", ">f8", "f2", "i1", "u1"])
def test_samples_of_any_type(dtype, sound):
    full = {"i": 2.0 ** (8 * np.dtype(dtype).itemsize - 1) - 1, "u": 127.0}.get(np.dtype(dtype).kind, 1.0)
    middle = 128 if np.dtype(dtype).kind == "u" else 0
    samples = (sound(1) * full + middle).astype(dtype)
    assert np.allclose(load_waveform(samples, 16_000), sound(1), atol=0.02)


@pytest.mark.parametrize("rate", [16_000, "16000", np.int64(16_000), 16_000.0, torch.tensor(16_000)])
def test_a_pair_of_array_and_rate_is_one_clip(rate, sound):
    """What gradio gives, and what soundfile and torchaudio do."""
    extractor = MacFeatureExtractor()
    for pair in ((rate, sound(1)), (sound(1), rate), [rate, sound(1)]):
        [waveform] = extractor.load(pair)
        assert np.array_equal(waveform, sound(1))
    assert np.array_equal(load_waveform({"array": sound(1), "sampling_rate": rate}), sound(1))
    assert len(extractor.load([(rate, sound(1)), (rate, sound(2))])) == 2


def test_floats_at_the_scale_of_integers_are_refused(sound, tmp_path):
    soundfile.write(tmp_path / "loud.wav", sound(1) * 32768, 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"loud.wav: samples of up to [\d.]+; expected floats in \[-1, 1\]"):
        load_waveform(tmp_path / "loud.wav")


def test_rows_and_columns_of_datasets(wav, sound):
    rows = Dataset.from_dict({"audio": [str(wav)] * 2, "caption": ["a", "b"]})
    rows = rows.cast_column("audio", Audio(decode=False))
    extractor = MacFeatureExtractor()
    for clips in ([rows[0]], rows["audio"], rows, rows[:]["audio"], [rows[0]["audio"]]):
        assert all(np.array_equal(waveform, sound(2)) for waveform in extractor.load(clips))
    assert len(extractor.load(rows["audio"])) == len(extractor.load(rows)) == 2


def test_every_kind_of_open_file(wav, sound):
    content = wav.read_bytes()
    written = io.BytesIO()
    written.write(content)  # and not rewound
    for audio in (bytearray(content), memoryview(content), io.BytesIO(content), written, wav.open("rb"), wav.as_uri()):
        assert np.array_equal(load_waveform(audio), sound(2))
    with pytest.raises(ValueError, match="open for text"), open(wav, encoding="latin-1") as file:
        load_waveform(file)
    read, write = os.pipe()
    threading.Thread(target=lambda: (os.write(write, content[:20_000]), os.close(write))).start()
    with pytest.warns(UserWarning, match="bytes of sound that it states are there"):
        assert len(load_waveform(os.fdopen(read, "rb"))) > 100


def test_names_and_links(wav, sound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xff.wav")
    Path(name).write_bytes(wav.read_bytes())
    Path("dangling.wav").symlink_to("gone.wav")
    assert np.array_equal(load_waveform(name), sound(2))
    refused = {
        "dangling.wav": "a link to 'gone.wav', which is not there",
        str(tmp_path): "a folder; expected a file",
        "/dev/zero": "a device; expected a file",
        "s3://bucket/a.wav": "no addresses of s3:// are read",
        os.fsdecode(b"gone\xff.wav"): "no such audio file",
    }
    for audio, message in refused.items():
        with pytest.raises(ValueError, match=message) as error:
            load_waveform(audio)
        str(error.value).encode()


def test_too_long_is_noticed_before_all_is_decoded(wav):
    with pytest.raises(ValueError, match=r"dog.wav: longer than 1.5 s, which is the limit"):
        load_waveform(wav, max_seconds=1.5)
    assert len(load_waveform(wav, max_seconds=2)) == 32_000


def short_wav(samples: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 800).astype(np.float32)
BAD = {
    "empty": (np.zeros(0), 16_000, "empty audio; expected at least 400 samples"),
    "short": (NOISE[:399], 16_000, "399 samples at 16000 Hz; expected at least 400"),
    "short after resampling": (NOISE, 48_000, "samples at 16000 Hz; expected at least 400"),
    "short file": (short_wav(NOISE[:300], 16_000), None, "300 samples at 16000 Hz; expected at least 400"),
    "empty file": (short_wav(NOISE[:0], 16_000), None, "empty audio"),
    "nan": (np.where(np.arange(800) == 7, np.nan, NOISE), 16_000, "NaN or Inf at sample 7"),
    "inf": (np.where(np.arange(800) == 9, -np.inf, NOISE), 44_100, "NaN or Inf at sample 9"),
    "nothing": (None, None, "NoneType; expected a path"),
    "a number": (5, 16_000, "int; expected a path"),
    "no rate": (NOISE, None, "needs its `sampling_rate`"),
    "no rate in a dict": ({"array": NOISE}, None, "needs its `sampling_rate`"),
    "low rate": (NOISE, 7_999, "7999 Hz; expected 8000 to 192000 Hz"),
    "high rate": (NOISE, 192_001, "192001 Hz; expected 8000 to 192000 Hz"),
    "low rate of a file": (short_wav(NOISE, 4_000), None, "4000 Hz; expected 8000 to 192000 Hz"),
    "three axes": (NOISE.reshape(2, 2, 200), 16_000, r"shape \(2, 2, 200\); expected \(samples,\) or two axes"),
    "integers of no PCM": ([1] * 800, 16_000, "samples of type int64; expected floats"),
    "other keys": ({"waveform": NOISE}, None, r"keys \['waveform'\]; expected `array`"),
    "other bytes": (b"no sound at all", None, "cannot be read as audio"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_audio_is_refused_by_name(case):
    audio, rate, message = BAD[case]
    with pytest.raises(ValueError, match=f"^row 3: .*{message}"):
        load_waveform(audio, rate, name="row 3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.wav", None, "no such audio file"),
        ("empty.wav", b"", "the file is empty"),
        ("text.wav", b"no sound at all", "cannot be read as audio"),
        ("text.xyz", b"no sound at all", "cannot be read as audio"),
        ("~nobody.wav", b"no sound at all", "cannot be read as audio"),
        ("x" * 300, None, "no such audio file"),
    ],
)
def test_bad_files_are_refused_by_path_and_row(name, content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{name[:200]}: .*{message}"):
        load_waveform(name)
    with pytest.raises(ValueError, match=rf"^row 3 \({name[:200]}\): .*{message}"):
        load_waveform({"path": name}, name="row 3")


def test_a_url_that_gives_no_audio(server, wav):
    wav.with_name("text.wav").write_bytes(b"no sound at all")
    with pytest.raises(ValueError, match=rf"^row 3 \({server}/text\.wav\): cannot be read as audio"):
        load_waveform(f"{server}/text.wav", name="row 3")


@pytest.fixture
def odd_server() -> Iterator[str]:
    """The address of a server that fails in the way that the path asks for."""

    class Odd(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            kind = self.path.strip("/")
            if kind == "404":
                self.send_error(404)
                return
            self.send_response(302 if kind == "loop" else 200)
            if kind == "loop":
                self.send_header("Location", "/loop")
            self.send_header("Content-Length", {"huge": "99999999999", "loop": "0"}.get(kind, "2000000"))
            if kind == "silent":
                time.sleep(2)
            self.end_headers()
            chunk = {"drip": 1, "short": 500, "much": 1_500_000}.get(kind, 0)
            with contextlib.suppress(OSError):
                for _ in range(8 if kind == "drip" else 1):
                    self.wfile.write(bytes(chunk))
                    self.wfile.flush()
                    time.sleep(0.3 if kind == "drip" else 0)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("404", "HTTP 404 Not Found"),
        ("loop", "HTTP 302"),
        ("silent", "no answer within the limits"),
        ("drip", "a server must send 1000 a second"),
        ("short", "the connection ended after 500 of 2000000 bytes"),
        ("huge", "100000 MB; the limit is 1 MB"),
        ("much", "2 MB; the limit is 1 MB"),
    ],
)
def test_a_server_cannot_stop_a_batch(kind, message, odd_server):
    begin = time.monotonic()
    megabytes = 5 if kind in ("drip", "short") else 1
    extractor = MacFeatureExtractor(url_limits={"silent_seconds": 0.5, "megabytes": megabytes})
    with pytest.raises(ValueError, match=f"cannot be fetched .*{message}"):
        extractor.load(f"{odd_server}/{kind}")
    assert time.monotonic() - begin < 2
    with pytest.raises(ValueError, match=r"^http://127.0.0.1:1/a.wav: cannot be fetched .*refused"):
        load_waveform("http://127.0.0.1:1/a.wav")


def test_bytes_of_a_row_are_named_by_their_path():
    with pytest.raises(ValueError, match=r"^cat\.wav: cannot be read"):
        load_waveform({"path": "cat.wav", "bytes": b"no sound at all"})


def test_a_name_that_nobody_looks_up_ends_in_time(monkeypatch):
    """The system's look-up of a name has no time limit of its own."""
    asked = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.wait(20) and [])
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"invalid/dog.wav: .*no answer within the limits of 0.3 s to connect"):
        MacFeatureExtractor(url_limits={"connect_seconds": 0.3})("http://nowhere.invalid/dog.wav")
    assert time.monotonic() - start < 5
    asked.set()

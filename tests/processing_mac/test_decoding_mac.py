"""Whatever a file is called and whatever length it states: all of its sound, or a word about what is missing."""

import io
import struct
import warnings
import wave
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from processing_mac import decoding_mac
from processing_mac.audio_mac import load_waveform, read_blocks
from processing_mac.decoding_mac import decode_blocks, stated_seconds


FIELD = Path(__file__).parents[1] / "fixtures" / "field"
SECONDS = 2.0
RATE = 48_000
# container of FFmpeg, codec, rate
COMPRESSED = {
    "memo.m4a": ("ipod", "aac", RATE),
    "memo.mp4": ("mp4", "alac", RATE),
    "memo.3gp": ("3gp", "libopencore_amrnb", 8_000),
    "memo.amr": ("amr", "libopencore_amrnb", 8_000),
    "browser.webm": ("webm", "libopus", RATE),
    "firefox.ogg": ("ogg", "libopus", RATE),
    "windows.wma": ("asf", "wmav2", RATE),
    "film.mkv": ("matroska", "ac3", RATE),
    "film.mov": ("mov", "pcm_s16be", RATE),
    "radio.mp2": ("mp2", "mp2", RATE),
    "stream.aac": ("adts", "aac", RATE),
    "old.caf": ("caf", "adpcm_ima_qt", RATE),
    "phone.wav": ("wav", "pcm_mulaw", 8_000),
    "adpcm.wav": ("wav", "adpcm_ms", RATE),
}


@pytest.fixture
def tone(sound) -> np.ndarray:
    return sound(SECONDS, rate=RATE)


@pytest.fixture
def encode(sound) -> Callable[..., bytes]:
    """Makes a file of mono sound, with pictures or more tracks beside it if asked for."""

    def make(container: str, codec: str, rate: int = RATE, video: bool = False, tracks: int = 1) -> bytes:
        buffer = io.BytesIO()
        samples = (sound(SECONDS, rate=rate) * 32767).astype(np.int16)
        with av.open(buffer, "w", format=container) as output:
            pictures = output.add_stream("mpeg4", rate=5) if video else None
            if pictures:
                pictures.width, pictures.height = 32, 32
            streams = [output.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
            for number in range(10 if pictures else 0):
                picture = av.VideoFrame(32, 32, "yuv420p")
                picture.pts = number
                output.mux(pictures.encode(picture))
            for stream in streams:
                if codec.startswith("wma"):
                    stream.bit_rate = 64_000  # its encoder knows no default for one channel
                frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
                frame.sample_rate = rate
                output.mux(stream.encode(frame))
                output.mux(stream.encode(None))
            if pictures:
                output.mux(pictures.encode(None))
        return buffer.getvalue()

    return make


@pytest.mark.parametrize("name", COMPRESSED)
def test_the_content_chooses_the_decoder(name, encode, sound, tmp_path):
    path = tmp_path / "misnamed.wav"
    path.write_bytes(encode(*COMPRESSED[name]))
    waveform = load_waveform(path)
    assert len(waveform) == pytest.approx(SECONDS * 16_000, abs=2_500)  # encoders pad
    spectra = [np.abs(np.fft.rfft(clip, n=40_000)) for clip in (waveform, sound(SECONDS))]
    assert abs(int(spectra[0].argmax()) - int(spectra[1].argmax())) < 4


PCM = [
    ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"),
    ("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AU", "ALAW"),
    ("CAF", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "subtype"), PCM)
def test_what_libsndfile_reads_is_read_alike_to_the_bit(container, subtype, tone, tmp_path):
    path = tmp_path / "sound"
    soundfile.write(path, np.stack([tone, 0.5 * tone], axis=1), RATE, format=container, subtype=subtype)
    expected = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    assert np.array_equal(load_waveform(path), soxr.resample(expected, RATE, 16_000, quality="HQ"))
    assert stated_seconds(str(path)) == pytest.approx(SECONDS)


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("codec", ["WAV", "OGG"])
def test_many_channels(channels, codec, tone, tmp_path):
    """From eight on, PyAV would read frames whose channels lie apart beyond their memory."""
    stack = np.zeros((len(tone), channels), dtype=np.float32)
    stack[:, -1] = tone
    soundfile.write(tmp_path / "sound", stack, RATE, format=codec)
    expected = soxr.resample(tone / channels, RATE, 16_000, quality="HQ")
    assert np.abs(load_waveform(tmp_path / "sound") - expected).max() < 0.02


def change(content: bytes, mark: bytes, gap: int, kind: str, value: int) -> bytes:
    """The file with another number behind a mark."""
    position = content.index(mark) + len(mark) + gap
    return content[:position] + struct.pack(kind, value) + content[position + struct.calcsize(kind) :]


LIES = [
    *[("WAV", b"data", 0, "<I", value) for value in (0, 1, 999, 2**31 - 1, 2**32 - 1)],
    *[("RF64", b"ds64", 12, "<Q", value) for value in (0, 999, 2**41)],
    *[("AIFF", b"SSND", 0, ">I", value) for value in (0, 999, 2**32 - 1)],
    *[("AU", b".snd", 4, ">I", value) for value in (0, 999, 2**32 - 1)],
    *[("W64", b"data\xf3", 11, "<Q", value) for value in (0, 999, 2**63)],
    *[("CAF", b"data", 0, ">q", value) for value in (0, 999, -1)],
]


@pytest.mark.parametrize(("container", "mark", "gap", "kind", "value"), LIES)
@pytest.mark.filterwarnings("error")
def test_no_stated_length_is_believed(container, mark, gap, kind, value, tone, tmp_path):
    path = tmp_path / "sound"
    soundfile.write(path, tone, RATE, format=container, subtype="PCM_16")
    expected = load_waveform(path)
    lying = change(path.read_bytes(), mark, gap, kind, value)
    assert np.array_equal(load_waveform(lying)[: len(expected) - 100], expected[:-100])  # a chunk may follow the sound


def test_a_recorder_that_died(tone, tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, tone, RATE, subtype="PCM_16")
    died = change(change(path.read_bytes(), b"RIFF", 0, "<I", 0), b"data", 0, "<I", 0)
    assert np.array_equal(load_waveform(died), load_waveform(path))


@pytest.mark.parametrize("stated", [0, 7, 2**36 - 1])
@pytest.mark.filterwarnings("ignore:.*s that it states are there")
def test_flac_from_a_pipe_or_with_a_wrong_count(stated, tone, tmp_path):
    path = tmp_path / "sound.flac"
    soundfile.write(path, tone, RATE)
    content = path.read_bytes()
    fields = int.from_bytes(content[18:26], "big") >> 36 << 36 | stated
    assert np.array_equal(load_waveform(content[:18] + fields.to_bytes(8, "big") + content[26:]), load_waveform(path))


def test_recordings_joined_to_one_file(tone, tmp_path):
    for name in ("a.flac", "a.mp3", "a.wav"):
        soundfile.write(tmp_path / name, tone, RATE)
    whole = {name: load_waveform(tmp_path / name) for name in ("a.flac", "a.wav")}
    twice = {name: load_waveform((tmp_path / name).read_bytes() * 2) for name in ("a.flac", "a.wav")}
    assert len(twice["a.flac"]) == 2 * len(whole["a.flac"])
    assert len(twice["a.wav"]) == pytest.approx(2 * len(whole["a.wav"]), abs=100)
    assert len(load_waveform((tmp_path / "a.mp3").read_bytes() * 2)) == pytest.approx(64_000, abs=2_000)
    assert len(load_waveform(FIELD / "chained.ogg")) == pytest.approx(11 * 16_000, abs=1_000)


@pytest.mark.parametrize("rates", [(48_000, 16_000), (16_000, 44_100)])
def test_joined_flacs_of_different_rates(rates, sound, tmp_path):
    for rate in rates:
        soundfile.write(tmp_path / f"{rate}.flac", sound(SECONDS, rate=rate), rate)
    joined = b"".join((tmp_path / f"{rate}.flac").read_bytes() for rate in rates)
    assert len(load_waveform(joined)) == pytest.approx(2 * SECONDS * 16_000, abs=100)


@pytest.mark.parametrize("container", ["ipod", "mp4", "mov"])
def test_of_joined_memos_it_is_said_that_one_is_heard(container, encode):
    memo = encode(container, "aac")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = load_waveform(memo)
    with pytest.warns(UserWarning, match="holds 3 recordings one after another, of which the first is heard"):
        assert len(load_waveform(memo * 3)) == len(alone)


def test_mp3_with_wrong_or_missing_counts():
    assert len(load_waveform(FIELD / "vbr_noxing.mp3")) == pytest.approx(5.5 * 16_000, abs=1_000)
    with pytest.warns(UserWarning, match=r"5.51 s of the 56097531.97 s that it states are there"):
        assert len(load_waveform(FIELD / "xing_wrong_huge.mp3")) == pytest.approx(5.5 * 16_000, abs=1_000)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "webm"])
def test_of_a_truncated_file_what_is_missing_is_said(kind, tone, encode, tmp_path):
    path = tmp_path / f"cut.{kind}"
    if kind == "webm":
        path.write_bytes(encode("webm", "libopus"))
    else:
        soundfile.write(path, tone, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=rf"cut.{kind}: .* that it states are there"):
        waveform = load_waveform(path)
    assert 0.3 * SECONDS < len(waveform) / 16_000 < 0.7 * SECONDS


def test_a_memo_without_its_index_is_refused_in_words(encode):
    with pytest.raises(ValueError, match="its index, which a recorder writes last, is missing"):
        load_waveform(encode("ipod", "aac")[:-3_000])


def test_films(encode):
    assert len(load_waveform(encode("mp4", "aac", video=True))) == pytest.approx(32_000, abs=2_500)
    with pytest.raises(ValueError, match="it holds video, but no sound"):
        load_waveform(encode("mp4", "aac", video=True, tracks=0))
    with pytest.warns(UserWarning, match="holds 2 sound tracks, of which number 1 is heard"):
        load_waveform(encode("matroska", "pcm_s16le", tracks=2))


JUNK = {
    "text": b"audio,caption\na.wav,a dog\n" * 50,
    "page": b"<html><body>404</body></html>",
    "noise": np.random.default_rng(0).bytes(50_000),
    "zeros": bytes(50_000),
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    "list": b"ffconcat version 1.0\nfile '/etc/hostname'\n",
}


@pytest.mark.parametrize("name", JUNK)
def test_what_is_no_sound_is_refused(name):
    with pytest.raises(ValueError, match=r"^row 3: cannot be read as audio \("):
        load_waveform(JUNK[name], name="row 3")


@pytest.mark.filterwarnings("ignore:audio bytes")
@pytest.mark.parametrize("name", ["memo.m4a", "browser.webm", "phone.wav", "old.caf"])
def test_any_byte_may_be_the_last_or_wrong(name, encode):
    """It never ends otherwise than with sound or with a ValueError."""
    content = encode(*COMPRESSED[name])
    rng = np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(content[: rng.integers(len(content))] if rng.random() < 0.5 else content)
        for position in rng.integers(len(broken), size=5) if broken else []:
            broken[position] = rng.integers(256)
        try:
            assert np.isfinite(load_waveform(bytes(broken))).all()
        except ValueError as error:
            assert "audio" in str(error)


def test_metadata_of_any_encoding_and_size(tone, tmp_path):
    path = tmp_path / "sound.mp3"
    soundfile.write(path, tone, RATE)
    text = b"TIT2" + (2_000_001).to_bytes(4, "big") + b"\0\0\0" + b"\xe4" * 2_000_000
    size = bytes(len(text) >> 7 * place & 127 for place in (3, 2, 1, 0))
    tagged = b"ID3\x03\0\0" + size + text + path.read_bytes()
    assert np.array_equal(load_waveform(tagged), load_waveform(path))


def test_blocks_are_small_and_the_same_sound(tone, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(tone, 20), RATE)
    blocks = list(read_blocks(path))
    assert len(blocks) > 20 and max(map(len, blocks)) < 3 * 16_000
    assert np.array_equal(np.concatenate(blocks), load_waveform(path))
    decoded = [block.shape for block, _ in decode_blocks(io.BytesIO(path.read_bytes()), "long")]
    assert sum(samples for _, samples in decoded) == 20 * len(tone) and {channels for channels, _ in decoded} == {1}


def test_a_pipe_that_never_ends_is_read_as_it_comes(tone):
    header = io.BytesIO()
    with wave.open(header, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)

    class Endless:
        start = change(header.getvalue(), b"data", 0, "<I", 2**32 - 1)

        def read(self, size: int) -> bytes:
            head, self.start = self.start[:size], self.start[size:]
            return head or bytes(size)

    blocks = read_blocks(Endless())
    assert sum(len(next(blocks)) for _ in range(5)) > 3 * 16_000


def test_without_pyav_libsndfile_reads_what_it_can(tone, encode, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "sound.flac", tone, RATE)
    expected = load_waveform(tmp_path / "sound.flac")
    memo = encode("ipod", "aac")
    monkeypatch.setattr(decoding_mac, "av", None)
    assert np.array_equal(load_waveform(tmp_path / "sound.flac"), expected)
    with pytest.raises(ValueError, match="PyAV reads more formats: pip install av"):
        load_waveform(memo)


def test_opus_is_decoded_as_its_authors_do():
    """FFmpeg's own decoder makes samples of five times full scale of this noise."""
    rng = np.random.default_rng(30)
    time = np.arange(3 * 16_000) / 16_000
    bursts = np.sin(2 * np.pi * time * rng.uniform(0.5, 4)) > rng.uniform(-0.5, 0.8)
    noise = np.clip(rng.standard_normal(len(time)) * 1.2 * bursts, -0.99, 0.99)
    file = io.BytesIO()
    soundfile.write(file, noise, 16_000, format="OGG", subtype="OPUS", compression_level=0.9)
    decoded = np.concatenate([samples for samples, _ in decode_blocks(io.BytesIO(file.getvalue()), "noise")], axis=1)
    assert decoded.shape == (1, 3 * 48_000) and 0.5 < np.abs(decoded).max() <= 1

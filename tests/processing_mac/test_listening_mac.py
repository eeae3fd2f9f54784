"""Endless audio: what blocks of any size give, what is remembered, what is refused."""

from itertools import pairwise

import numpy as np
import pytest
import soxr
import torch

from processing_mac import DEFAULT_MODEL, AudioCaptioningPipeline, load_captioner
from processing_mac.listening_mac import CHANGE, first_change, merge_equal


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


def blocks_of(clip: np.ndarray, size: int) -> list[np.ndarray]:
    return [clip[start : start + size] for start in range(0, len(clip), size)]


@pytest.mark.parametrize("size", [1_601, 163_840, 10**6])
@pytest.mark.parametrize("seconds", [0.3, 10.24, 23.7, 20.7])
def test_blocks_of_any_size_give_the_segments_of_the_whole(captioner, sound, size, seconds) -> None:
    clip = sound(seconds)
    expected = captioner(clip, sampling_rate=16_000, return_segments=True)[0]["segments"]
    found = list(captioner.stream(merge=True).over(blocks_of(clip, size)))
    assert found == merge_equal(expected)


def test_windows_have_the_frames_of_the_whole(captioner, sound) -> None:
    clip, heard = sound(25), []
    stream = captioner.stream(merge=False)
    stream.ask = lambda windows: heard.append(windows) or ""
    list(stream.over(blocks_of(clip, 7_777)))
    whole = captioner.processor.feature_extractor(clip, 16_000)["input_features"]
    torch.testing.assert_close(torch.cat(heard), whole, atol=1e-3, rtol=0)


def test_the_recording_is_remembered(captioner, sound) -> None:
    clip = sound(20.48)
    stream = captioner.stream(memory="recording", merge=False)
    segments = list(stream.over(blocks_of(clip, 50_000)))
    assert segments[-1]["caption"] == captioner(clip, sampling_rate=16_000)[0]["caption"]
    assert stream.state.windows == 2


def test_another_rate_is_resampled_once(captioner, sound) -> None:
    clip = sound(12, rate=44_100)
    stream = captioner.stream(merge=False)
    stream.ask = lambda windows: ""
    seconds = round(len(soxr.resample(clip, 44_100, 16_000)) / 16e3, 3)
    segments = [part for block in blocks_of(clip, 4_000) for part in stream.push(block, 44_100)]
    with pytest.raises(ValueError, match="rate changed from 44100 to 48000"):
        stream.push(clip, 48_000)
    segments += stream.close()
    assert [segment["end"] for segment in segments] == [10.24, seconds]
    [again] = stream.push(clip[:48_000], 48_000) + stream.close()  # what comes after the end is a segment of its own
    assert (again["start"], again["end"]) == (seconds, pytest.approx(seconds + 1, abs=2e-3))


def test_what_is_no_sound_is_refused(captioner) -> None:
    stream = captioner.stream()
    stream.push(np.zeros(10))
    with pytest.raises(ValueError, match="NaN or Inf at sample 12"):
        stream.push([0.0, 0.0, np.nan])
    with pytest.raises(ValueError, match="one axis"):
        stream.push(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="`every` is 60"):
        captioner.stream(every=60)
    assert captioner.stream().close() == []


def test_rates_and_scales_that_cannot_be_are_refused(captioner, sound) -> None:
    stream = captioner.stream()
    for rate in (0, -16_000, 1, float("nan")):
        with pytest.raises(ValueError, match=r"the stream: sampling rate .* expected 8000 to 192000 Hz"):
            stream.push(sound(1), rate)
    with pytest.raises(ValueError, match="the stream: samples of up to"):
        stream.push(sound(1) * 32_768)
    with pytest.raises(ValueError, match="the stream: samples of type int64"):
        stream.push(np.arange(9))
    assert stream.push(np.zeros(0)) == stream.close() == []


@pytest.mark.parametrize("type", [np.int16, np.int32, torch.int16])
def test_integers_are_heard_by_their_full_scale(captioner, sound, type) -> None:
    clip, streams = sound(2), [captioner.stream(), captioner.stream()]
    bits = torch.iinfo(type).bits if isinstance(type, torch.dtype) else np.iinfo(type).bits
    whole = (clip * 2.0 ** (bits - 1)).astype(f"i{bits // 8}")
    streams[0].push(torch.from_numpy(whole) if isinstance(type, torch.dtype) else whole)
    streams[1].push(clip)
    np.testing.assert_allclose(streams[0].blocks, streams[1].blocks, atol=2**-15)


def test_silence_is_one_segment(captioner) -> None:
    segments = captioner.stream().over(blocks_of(np.zeros(35 * 16_000, np.float32), 16_000))
    assert next(segment["end"] for segment in segments) == 30.72  # the last window is padded, which is another input


def test_a_change_of_the_rows_is_found() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 32)
    rows = torch.cat([first.expand(23, -1), second.expand(41, -1)]) + 0.1 * torch.randn(64, 32)
    assert abs(first_change(rows, 6) - 23) <= 1 and CHANGE < 1
    assert first_change(rows[:8], 6) is None
    assert first_change(rows[23:], 6) is None  # one sound, whose tokens are never quite the same


def test_cuts_at_changes_lose_no_sound(captioner, sound, monkeypatch) -> None:
    """Each 3.2 s, also in what is left when the stream ends."""
    monkeypatch.setattr(
        "processing_mac.listening_mac.first_change", lambda rows, context: 20 if len(rows) > 32 else None
    )
    segments = list(captioner.stream(cut="change", merge=False).over(blocks_of(sound(25), 9_000)))
    assert [segment["end"] for segment in segments] == [3.2, 6.4, 9.6, 12.8, 16, 19.2, 22.4, 25]
    assert all(one["end"] == two["start"] for one, two in pairwise(segments))


def test_a_trained_encoder_hears_where_the_sound_changes() -> None:
    time = np.arange(4 * 16_000) / 16_000
    tone = 0.3 * np.sign(np.sin(2 * np.pi * 440 * time))
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(time))
    stream = load_captioner(DEFAULT_MODEL, device="cpu").stream(cut="change", merge=False)
    stream.ask = lambda windows: ""
    segments = list(stream.over([np.concatenate([tone, noise, tone])]))
    assert [segment["end"] for segment in segments] == pytest.approx([4, 8, 12], abs=0.4)

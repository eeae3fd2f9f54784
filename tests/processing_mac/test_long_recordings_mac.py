"""Long recordings: the captions of the pipeline's segments, in memory that does not grow with the length."""

import os
import threading

import numpy as np
import pytest
import soundfile

from processing_mac import AudioCaptioningPipeline
from processing_mac.audio_mac import TooLongError
from processing_mac.long_recordings_mac import (
    BLOCK_WINDOWS,
    caption_long_file,
    caption_windows,
    cut_parts,
    join_captions,
    load_short,
)


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


@pytest.mark.parametrize("seconds", [3, 10.3, 61.44, 61.7, 62.5, 75])
def test_the_windows_are_those_of_the_pipeline(seconds, captioner, tmp_path, sound):
    """61.44 s are six windows, a whole part; a rest of up to half a second belongs to the window before it."""
    path = str(tmp_path / "long.wav")
    soundfile.write(path, sound(seconds), 16_000)
    [expected] = captioner(path, return_segments=True)
    segments = list(caption_windows(captioner, path))
    times = [(segment["start"], segment["end"]) for segment in segments]
    assert times == [(segment["start"], segment["end"]) for segment in expected["segments"]]
    if seconds != 10.3:  # there the pipeline hears the rest, too
        assert segments == expected["segments"]


def test_parts_hold_no_more_than_they_need():
    size, shortest = 100, 10
    blocks = [np.full(37, number, np.float32) for number in range(60)]
    parts = list(cut_parts(blocks, size, shortest))
    assert [is_last for _, is_last in parts] == [False, False, False, True]
    assert all(len(part) < BLOCK_WINDOWS * size + shortest + 37 for part, _ in parts)
    taken = [part if is_last else part[: BLOCK_WINDOWS * size] for part, is_last in parts]
    assert np.array_equal(np.concatenate(taken), np.concatenate(blocks))


def test_segments_come_before_the_recording_is_read(captioner, tmp_path, sound, monkeypatch):
    path = str(tmp_path / "long.wav")
    soundfile.write(path, sound(70), 16_000)
    samples, _ = soundfile.read(path, dtype="float32")
    samples[69 * 16_000] = np.nan  # after all windows of the first part
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    shown = []
    with pytest.raises(ValueError, match="NaN"):
        caption_long_file(captioner, path, shown.append)
    assert len(shown) == BLOCK_WINDOWS


def test_what_is_one_window_and_what_is_not(captioner, tmp_path, sound):
    extractor = captioner.feature_extractor
    soundfile.write(tmp_path / "one.wav", sound(10.24), 16_000)
    soundfile.write(tmp_path / "two.wav", sound(10.3), 16_000)
    assert len(load_short(extractor, 1, str(tmp_path / "one.wav"))) == 163_840
    with pytest.raises(TooLongError):
        load_short(extractor, 1, str(tmp_path / "two.wav"))
    assert len(load_short(extractor, 2, str(tmp_path / "two.wav"))) == 164_800


def test_a_pipe_is_read_once(captioner, tmp_path, sound):
    soundfile.write(tmp_path / "one.wav", sound(3), 16_000)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TooLongError):
        load_short(captioner.feature_extractor, 1, str(tmp_path / "pipe"))
    writer = threading.Thread(
        target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "one.wav").read_bytes()), daemon=True
    )
    writer.start()
    [segment] = caption_windows(captioner, str(tmp_path / "pipe"))
    assert segment["end"] == 3


def test_too_short(captioner, tmp_path, sound):
    soundfile.write(tmp_path / "short.wav", sound(0.01), 16_000)
    with pytest.raises(ValueError, match="160 samples"):
        list(caption_windows(captioner, str(tmp_path / "short.wav")))


def test_a_caption_of_what_is_heard_in_order():
    assert join_captions(["rain falls", "rain falls", " ", "a bell", "rain falls"]) == "rain falls; a bell"

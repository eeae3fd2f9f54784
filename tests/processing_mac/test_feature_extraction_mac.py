"""Log-mel windows: bit-equal to the reference, and the same whatever stands beside a clip."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from processing_mac import MacFeatureExtractor, feature_extraction_mac


@pytest.fixture
def extractor() -> MacFeatureExtractor:
    return MacFeatureExtractor()


@pytest.fixture(params=[1, 2, 5])
def threads(request) -> Iterator[int]:
    """Runs a test with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_log_mel_is_bit_equal_to_the_reference(golden, extractor, threads):
    assert torch.equal(extractor.raw_log_mel(golden["in.waveform_chirp10s"].numpy()), golden["in.fbank_raw"])


def test_the_models_input_is_the_references(golden, extractor):
    features = extractor(golden["in.waveform_chirp10s"], sampling_rate=16_000)
    assert torch.equal(features["input_features"], golden["in.input_1024"].squeeze(1))
    assert features["audio_num_windows"].tolist() == [1]


def test_a_constant_offset_changes_nothing(extractor, sound):
    plain, shifted = (extractor(clip, 16_000)["input_features"] for clip in (sound(3), sound(3) + 0.25))
    assert torch.allclose(plain, shifted, atol=1e-3)


def test_silence_is_finite(extractor):
    assert extractor(np.zeros(16_000), 16_000)["input_features"].isfinite().all()


WINDOW = 1024 * 160  # samples between the starts of two windows
LAST_OF_ONE = 399 + 1024 * 160  # one more sample makes frame 1025


@pytest.mark.parametrize(
    ("samples", "windows"),
    [(400, 1), (16_000, 1), (WINDOW, 1), (LAST_OF_ONE, 1), (LAST_OF_ONE + 1, 2), (25 * 16_000, 3), (40 * 16_000, 4)],
)
def test_windows_by_length(samples, windows, extractor, sound):
    features = extractor(sound(samples / 16_000), sampling_rate=16_000)
    assert features["input_features"].shape == (windows, 1024, 128)
    assert features["audio_num_windows"].tolist() == [windows]


def test_windows_cut_the_whole_clips_log_mel_and_end_in_padding(extractor, sound):
    log_mel = extractor.raw_log_mel(sound(25))
    windows = extractor(sound(25), 16_000)["input_features"].flatten(0, 1)
    padded = torch.cat([log_mel, torch.zeros(3 * 1024 - len(log_mel), 128)])
    assert torch.equal(windows, (padded + 4.268) / 9.138)


@pytest.mark.parametrize("extra", [0, 1, 159, 160, 239, 240, 241, 400, 1_600])
def test_blocks_of_a_long_recording_leave_no_seam(extra, extractor, sound, monkeypatch):
    clip = sound((3 * 16_000 + extra) / 16_000)
    whole = extractor.raw_log_mel(clip)
    monkeypatch.setattr(feature_extraction_mac, "SAMPLES_PER_BLOCK", 16_000)
    blocks = extractor.raw_log_mel(clip)
    assert blocks.shape == whole.shape == (1 + (len(clip) - 400) // 160, 128)
    assert torch.allclose(blocks, whole, atol=1e-4)


def test_a_batch_is_each_clip_alone(extractor, sound):
    clips = [sound(3, 1), sound(25, 2), sound(0.03, 3), sound(10.5, 4)]
    batch = extractor(clips, sampling_rate=16_000)
    assert batch["audio_num_windows"].tolist() == [1, 3, 1, 2]
    alone = torch.cat([extractor(clip, sampling_rate=16_000)["input_features"] for clip in clips])
    assert torch.equal(batch["input_features"], alone)


def test_a_list_of_numbers_is_one_clip(extractor, sound):
    for numbers in (sound(1).tolist(), list(sound(1)), tuple(sound(1).tolist())):
        assert len(extractor.load(numbers, 16_000)) == 1
    assert len(extractor.load([sound(1).tolist(), sound(2).tolist()], 16_000)) == 2


def test_errors_name_the_row(extractor, sound, tmp_path):
    with pytest.raises(ValueError, match=r"^audio 1: 100 samples"):
        extractor([sound(1), sound(1)[:100]], sampling_rate=16_000)
    with pytest.raises(ValueError, match=rf"^audio 0 \({tmp_path}/no\.wav\): no such audio file"):
        extractor([tmp_path / "no.wav"])
    with pytest.raises(ValueError, match="list of audio is empty"):
        extractor([])


def test_numpy_tensors(extractor, sound):
    features = extractor(sound(1), 16_000, return_tensors="np")
    assert isinstance(features["input_features"], np.ndarray) and features["audio_num_windows"].dtype == np.int64


def test_save_and_load(extractor, sound, tmp_path):
    saved = MacFeatureExtractor(window_frames=512, mean=-3.0, scale=4.0)
    saved.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(loaded, MacFeatureExtractor)
    assert loaded.to_dict() == saved.to_dict() and loaded.window_seconds == 5.12
    assert torch.equal(loaded(sound(8), 16_000)["input_features"], saved(sound(8), 16_000)["input_features"])


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_another_rate_is_refused(rate):
    """Frames and filters count samples at 16 kHz: 10 ms would be something else, without a word."""
    with pytest.raises(ValueError, match=rf"`sampling_rate` is {rate}; MAC's frames are made for 16000 Hz"):
        MacFeatureExtractor(sampling_rate=rate)

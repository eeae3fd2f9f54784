"""Whisper's front end by configuration: what transformers' own extractor gives."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from modeling_mac import WhisperTowerConfig
from processing_mac import MacFeatureExtractor


@pytest.fixture
def extractor() -> MacFeatureExtractor:
    return MacFeatureExtractor(**WhisperTowerConfig().front_end)


def noise(samples: int) -> np.ndarray:
    """Loud, then a thousand times quieter: the range of a window is cut."""
    sound = np.random.default_rng(0).normal(size=samples).astype(np.float32) * 0.1
    sound[samples // 2 :] *= 1e-5
    return sound


@pytest.mark.parametrize("samples", [16_000, 77_777, 479_000])
def test_a_short_clip_is_whispers(extractor, samples):
    expected = WhisperFeatureExtractor()(noise(samples), sampling_rate=16_000, return_tensors="pt").input_features
    features = extractor(noise(samples), sampling_rate=16_000)
    assert features["audio_num_windows"].tolist() == [1]
    torch.testing.assert_close(features["input_features"], expected.transpose(1, 2), rtol=0, atol=2e-4)


def test_a_full_window_is_whispers_but_for_the_mirror_at_its_end(extractor):
    expected = WhisperFeatureExtractor()(noise(480_000), sampling_rate=16_000, return_tensors="pt").input_features
    features = extractor(noise(480_000), sampling_rate=16_000)
    assert features["input_features"].shape == (1, 3000, 80)
    torch.testing.assert_close(features["input_features"][:, :-1], expected.transpose(1, 2)[:, :-1], rtol=0, atol=2e-4)


def test_large_models_have_128_bins():
    extractor = MacFeatureExtractor(**WhisperTowerConfig(num_mel_bins=128).front_end)
    expected = WhisperFeatureExtractor(feature_size=128)(noise(32_000), sampling_rate=16_000, return_tensors="pt")
    features = extractor(noise(32_000), sampling_rate=16_000)["input_features"]
    torch.testing.assert_close(features, expected.input_features.transpose(1, 2), rtol=0, atol=2e-4)


def test_a_minute_and_a_second_are_three_windows(extractor):
    features = extractor(noise(61 * 16_000), sampling_rate=16_000)
    assert features["audio_num_windows"].tolist() == [3]
    silence = features["input_features"][2, 200:]
    assert torch.equal(silence, silence[:1, :1].expand_as(silence))


def test_blocks_are_seamless(extractor, monkeypatch):
    whole = extractor.raw_log_mel(noise(50_000))
    monkeypatch.setattr("processing_mac.feature_extraction_mac.SAMPLES_PER_BLOCK", 16_000)
    torch.testing.assert_close(extractor.raw_log_mel(noise(50_000)), whole, rtol=0, atol=1e-5)


def test_a_saved_extractor_stays_whispers(extractor, tmp_path):
    extractor.save_pretrained(tmp_path)
    loaded = MacFeatureExtractor.from_pretrained(tmp_path)
    assert torch.equal(
        loaded(noise(16_000), 16_000)["input_features"], extractor(noise(16_000), 16_000)["input_features"]
    )


def test_an_unknown_front_end_is_refused():
    with pytest.raises(ValueError, match=r"`front_end` is 'mfcc'; expected one of \('kaldi', 'whisper'\)"):
        MacFeatureExtractor(front_end="mfcc")

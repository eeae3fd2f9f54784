"""Encodings that are kept are those that the encoder would give."""

from pathlib import Path
from types import SimpleNamespace

import torch

from modeling_mac import EatConfig, EatModel
from processing_mac import MacFeatureExtractor
from processing_mac.dataset_mac import Clip
from training_mac.data_recipe import DataRecipe
from training_mac.encoded import EncodedExamples
from training_mac.training_set import TrainingSet


def test_each_variant_is_read_in_its_epochs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = EatConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, window_frames=64
    )
    encoder = EatModel(config).train()
    clips = [Clip(f"{row}.wav", (f"caption {row}", f"words {row}"), ("phrase",), f"source {row}") for row in range(3)]
    extractor = MacFeatureExtractor(window_frames=64)
    data = DataRecipe("", join_probability=0.5, spec_augment=True, max_windows=1)
    scenes = TrainingSet([clips], [1.0], data, SimpleNamespace(feature_extractor=extractor), seed=5)
    scenes.log_mels = [torch.randn(90, 128) for _ in clips]
    encoded = EncodedExamples(scenes, encoder, variants=2, file=tmp_path / "run" / "encoded.npy")
    assert encoder.training and not list((tmp_path / "run").iterdir())
    assert len(encoded) == 3
    encoder.eval()
    for epoch in (0, 1, 2, 5):
        encoded.set_epoch(epoch)
        scenes.set_epoch(epoch % 2)
        for row in range(3):
            assert encoded[row]["caption"] == scenes[row]["caption"]
            expected = encoder(scenes[row]["input_features"]).last_hidden_state
            torch.testing.assert_close(encoded[row]["encoder_hidden_states"], expected, atol=3e-3, rtol=1e-2)

"""Encodings that are kept are those that the encoder would give."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modeling_mac import EatConfig, EatModel
from processing_mac import MacFeatureExtractor
from processing_mac.dataset_mac import Clip
from training_mac.examples.encoded import EncodedExamples
from training_mac.examples.training_set import TrainingSet
from training_mac.recipe.data_fields import DataRecipe


@pytest.fixture
def encoder() -> EatModel:
    torch.manual_seed(0)
    config = EatConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, window_frames=64
    )
    return EatModel(config).train()


@pytest.fixture
def scenes() -> TrainingSet:
    clips = [Clip(f"{row}.wav", (f"caption {row}", f"words {row}"), ("phrase",), f"source {row}") for row in range(3)]
    extractor = MacFeatureExtractor(window_frames=64)
    data = DataRecipe("", join_probability=0.5, spec_augment=True, max_windows=1, skip_bad_audio=True)
    scenes = TrainingSet([clips], [1.0], data, SimpleNamespace(feature_extractor=extractor), seed=5)
    scenes.log_mels = [torch.randn(90, 128) for _ in clips]
    return scenes


def test_each_variant_is_read_in_its_epochs(encoder: EatModel, scenes: TrainingSet, tmp_path: Path) -> None:
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


def plain(scenes: TrainingSet) -> TrainingSet:
    """The same recordings, whole and alone: only their wordings vary."""
    scenes.scenes.data.join_probability, scenes.scenes.data.spec_augment = 0.0, False
    scenes.log_mels = [log_mel[:60] for log_mel in scenes.log_mels]
    return scenes


def test_audio_that_comes_again_is_encoded_once_with_the_texts_of_each_epoch(encoder, scenes, tmp_path) -> None:
    seen: list[int] = []
    encoder.register_forward_pre_hook(lambda model, inputs: seen.append(len(inputs[0])))
    encoded = EncodedExamples(plain(scenes), encoder, variants=4, file=tmp_path / "encoded")
    assert seen == [3]
    captions = set()
    for epoch in range(4):
        encoded.set_epoch(epoch)
        scenes.set_epoch(epoch)
        for row in range(3):
            assert encoded[row]["caption"] == scenes[row]["caption"]
            expected = encoder.eval()(scenes[row]["input_features"]).last_hidden_state
            torch.testing.assert_close(encoded[row]["encoder_hidden_states"], expected, atol=3e-3, rtol=1e-2)
        captions.add(encoded[0]["caption"])
    assert captions == {"caption 0", "words 0"}


def test_encodings_are_kept_for_other_runs_with_this_encoder_alone(encoder, scenes, tmp_path) -> None:
    seen: list[int] = []
    encoder.register_forward_pre_hook(lambda model, inputs: seen.append(len(inputs[0])))
    kept = tmp_path / "kept"
    first = EncodedExamples(plain(scenes), encoder, 1, tmp_path / "encoded", folder=kept)
    again = EncodedExamples(scenes, encoder, 1, tmp_path / "encoded", folder=kept)
    assert seen == [3] and len(list(kept.iterdir())) == 1
    assert all(torch.equal(first.states(row), again.states(row)) for row in range(3))
    scenes.log_mels[1] = torch.randn(60, 128)  # one more recording joins those that are kept
    more = EncodedExamples(scenes, encoder, 1, tmp_path / "encoded", folder=kept)
    assert seen == [3, 1] and torch.equal(more.states(2), first.states(2))
    assert not torch.equal(more.states(1), first.states(1))
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    EncodedExamples(scenes, encoder, 1, tmp_path / "encoded", folder=kept)
    assert seen == [3, 1, 3] and len(list(kept.iterdir())) == 2


def test_examples_may_have_several_windows(encoder: EatModel, scenes: TrainingSet, tmp_path: Path) -> None:
    scenes.scenes.data.max_windows = scenes.scenes.most_frames = None
    scenes.scenes.data.join_probability = 0.0
    scenes.log_mels = [torch.randn(frames, 128) for frames in (60, 90, 200)]
    encoded = EncodedExamples(scenes, encoder, variants=2, file=tmp_path / "encoded", mix=0.4)
    encoder.eval()
    for epoch in (0, 1):
        for one in (encoded, scenes):
            one.set_epoch(epoch)
        for row, windows in enumerate((1, 2, 4)):
            assert encoded[row]["encoder_hidden_states"].shape == (windows, 33, 32)
            expected = encoder(scenes[row]["input_features"]).last_hidden_state
            torch.testing.assert_close(encoded.states(epoch * 3 + row), expected, atol=3e-3, rtol=1e-2)
    assert not torch.equal(encoded[2]["encoder_hidden_states"][0], encoded.states(5)[0])  # something is mixed in


def test_a_share_of_another_example_is_mixed_in(encoder: EatModel, scenes: TrainingSet, tmp_path: Path) -> None:
    encoded = EncodedExamples(scenes, encoder, 2, tmp_path / "encoded", mix=0.4, seed=3)
    encoded.encoded[:] = np.arange(6)[:, None, None]  # 0 to 2 in even epochs, 3 to 5 in odd ones
    first_row = []
    for epoch in range(40):
        encoded.set_epoch(epoch)
        states = [encoded[row]["encoder_hidden_states"] for row in range(3)]
        assert all(torch.equal(encoded[row]["encoder_hidden_states"], states[row]) for row in range(3))
        assert all((one == one[0, 0, 0]).all() for one in states)
        moved = [float(one[0, 0, 0]) - row - 3 * (epoch % 2) for row, one in enumerate(states)]
        assert 0 <= moved[0] <= 0.8 and -0.4 <= moved[1] <= 0.4 and -0.8 <= moved[2] <= 0
        first_row.append(round(moved[0], 4))
    assert max(first_row) > 0.5 and len(set(first_row)) > 20


def test_the_encoder_works_where_training_will_and_goes_back(encoder, scenes, tmp_path, monkeypatch) -> None:
    """Where there is no second device, its journey and what it did on the way; the next test moves it."""
    journey: list[str] = []
    monkeypatch.setattr(EatModel, "to", lambda self, device: journey.append(str(device)) or self)
    encoder.register_forward_pre_hook(lambda model, _: journey.append("trains" if model.training else "encodes"))
    EncodedExamples(scenes, encoder, 2, tmp_path / "encoded", device="cuda:1")
    assert journey == ["cuda:1", "encodes", "encodes", "cpu"] and encoder.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_encoder_moves_to_a_gpu_and_back(encoder, scenes, tmp_path) -> None:
    expected = EncodedExamples(scenes, encoder, 1, tmp_path / "on-cpu")
    places: list[tuple[str, str]] = []
    encoder.register_forward_pre_hook(lambda model, inputs: places.append((model.device.type, inputs[0].device.type)))
    encoded = EncodedExamples(scenes, encoder, 1, tmp_path / "on-gpu", device="cuda")
    assert places == [("cuda", "cuda")] and encoder.device.type == "cpu" and encoder.training
    for row in range(3):
        states = [one[row]["encoder_hidden_states"] for one in (encoded, expected)]
        torch.testing.assert_close(*states, atol=1e-2, rtol=1e-2)


def test_a_full_disk_is_named_before_anything_is_encoded(encoder, scenes, tmp_path, monkeypatch) -> None:
    reserved: list[int] = []

    def full(descriptor: int, start: int, size: int) -> None:
        reserved.append(size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"encoded: no room for 0\.0 MB of encodings .*No space left.*`cached_epochs`"):
        EncodedExamples(scenes, encoder, 2, tmp_path / "encoded")
    assert reserved == [2 * 3 * (1 + 4 * 8) * 32 * 2] and not list(tmp_path.iterdir())


def test_the_trainer_finds_lengths_and_what_was_skipped(encoder, scenes, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(TrainingSet, "lengths", property(lambda self: [5, 6, 7]))
    scenes.note_unreadable([1])
    encoded = EncodedExamples(scenes, encoder, 1, tmp_path / "encoded")
    assert encoded.lengths == [5, 6, 7] and encoded.num_skipped == 1

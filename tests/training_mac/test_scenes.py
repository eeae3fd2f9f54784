"""Scenes say truly what sounds in them, and repeat from their seed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from processing_mac import MacFeatureExtractor
from processing_mac.dataset_mac import Clip, read_manifest
from training_mac.augmentation import FLOOR, change_timbre, mask_stripes, overlay, turn_in_time
from training_mac.scenes import SceneDataset, load_log_mels


EXTRACTOR = MacFeatureExtractor(window_frames=1024)


def make_scenes(**options) -> SceneDataset:
    """Clip i is 500 frames of the constant level -i."""
    sources = ["dog", "rain", "siren", "silence"]
    clips = [Clip(f"{i}.wav", (f"a {s} sounds",), (f"the {s}",), s) for i, s in enumerate(sources)]
    return SceneDataset(clips, [torch.full((500, 128), -float(i)) for i in range(4)], EXTRACTOR, **options)


def test_an_item_repeats_from_seed_epoch_and_row() -> None:
    first, again, other = (make_scenes(join_probability=0.5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[0]["input_features"], again[0]["input_features"])
    assert not torch.equal(first[0]["input_features"], other[0]["input_features"])
    again.set_epoch(1)
    assert not torch.equal(first[0]["input_features"], again[0]["input_features"])


def test_joined_scenes_name_both_in_order() -> None:
    scenes = make_scenes(join_probability=1.0)
    for row in range(3):
        item = scenes[row]
        (start, middle, first), (begin, end, second) = item["spans"]
        assert first == scenes.clips[row].source != second
        assert item["caption"] == f"a {first} sounds, followed by the {second}"
        assert (start, middle) == (0, begin) and begin < end <= 1024
        assert item["input_features"].shape == (1, 1024, 128)


def test_overlaid_scenes_name_both_over_the_whole() -> None:
    item = make_scenes(overlay_probability=1.0)[1]
    assert " while " in item["caption"]
    assert item["spans"][0][:2] == item["spans"][1][:2]


def test_silence_stays_alone_and_as_it_is() -> None:
    scenes = make_scenes(join_probability=1.0)
    assert scenes[3]["caption"] == "a silence sounds"
    assert all("silence" not in scenes[row]["caption"] for row in range(3))


def test_log_mels_are_the_front_end(manifest: Path) -> None:
    clips = read_manifest(manifest)
    log_mels = load_log_mels(clips, EXTRACTOR, max_frames=100)
    expected = EXTRACTOR.raw_log_mel(EXTRACTOR.load(clips[1].audio)[0])[:100]
    assert torch.equal(log_mels[1], expected.half())


@pytest.mark.parametrize("change", [change_timbre, turn_in_time, mask_stripes])
def test_a_change_leaves_shape_and_original(change) -> None:
    log_mel = torch.randn(200, 128)
    before = log_mel.clone()
    changed = change(log_mel, np.random.default_rng(0))
    assert changed.shape == log_mel.shape and torch.equal(log_mel, before) and not torch.equal(changed, log_mel)
    assert changed.min() >= FLOOR


def test_overlay_adds_energies() -> None:
    mixed = overlay(torch.zeros(4, 2), torch.zeros(2, 2))
    assert torch.allclose(mixed[:2].exp(), torch.full((2, 2), 2.0)) and torch.equal(mixed[2:], torch.zeros(2, 2))

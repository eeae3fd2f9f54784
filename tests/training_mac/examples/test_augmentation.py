"""Changes keep shape and original; energies add."""

from functools import partial

import numpy as np
import pytest
import torch

from training_mac.examples.augmentation import (
    DECIBEL,
    FLOOR,
    change_timbre,
    excerpt,
    mask_stripes,
    overlay,
    stretch,
    turn_in_time,
)


@pytest.mark.parametrize("change", [change_timbre, turn_in_time, partial(mask_stripes, fill=-4.0)])
def test_a_change_leaves_shape_and_original(change) -> None:
    log_mel = torch.randn(200, 128)
    before = log_mel.clone()
    changed = change(log_mel, np.random.default_rng(0))
    assert changed.shape == log_mel.shape and torch.equal(log_mel, before) and not torch.equal(changed, log_mel)
    assert changed.min() >= FLOOR


def test_a_gain_moves_all_cells_alike_and_within_its_bounds() -> None:
    gains = [
        change_timbre(torch.zeros(2, 4), np.random.default_rng(seed), tilt_db=0.0, gain_db=6.0) for seed in range(20)
    ]
    assert all(gain.unique().numel() == 1 for gain in gains)
    assert 3 * DECIBEL < max(gain.abs().max().item() for gain in gains) <= 6 * DECIBEL


def test_spec_augment_masks_no_more_than_slam_aac() -> None:
    for seed in range(20):
        log_mel = torch.arange(1024 * 128.0).view(1024, 128)
        changed = mask_stripes(log_mel, np.random.default_rng(seed), fill=-4.268)
        masked = changed != log_mel
        assert (changed[masked] == torch.tensor(-4.268)).all()
        assert masked.all(dim=1).sum() <= 2 * 64 and masked.all(dim=0).sum() <= 2 * 8


def test_an_excerpt_may_begin_anywhere() -> None:
    log_mel = torch.arange(5.0).view(5, 1)
    starts = {excerpt(log_mel, np.random.default_rng(seed), 3)[0].item() for seed in range(30)}
    assert starts == {0.0, 1.0, 2.0} and torch.equal(excerpt(log_mel, np.random.default_rng(0), 5), log_mel)


def test_stretching_changes_tempo_and_pitch_within_their_bounds() -> None:
    log_mel = torch.zeros(200, 128)
    log_mel[100:, 64] = 1.0  # a tone that begins half-way
    lengths, tones = [], []
    for seed in range(30):
        stretched = stretch(log_mel, np.random.default_rng(seed), tempo=0.25, pitch=0.1)
        lengths.append(len(stretched))
        tones.append(stretched[-1].argmax().item())
        assert stretched.shape[1] == 128
        assert stretched[:, tones[-1]].argmax().item() == pytest.approx(len(stretched) / 2, abs=2)
    assert 160 <= min(lengths) < 170 and 235 < max(lengths) <= 250
    assert 58 <= min(tones) < 61 and 68 < max(tones) <= 71


def test_without_tempo_and_pitch_nothing_is_stretched() -> None:
    log_mel = torch.randn(50, 128)
    torch.testing.assert_close(stretch(log_mel, np.random.default_rng(0), 0.0, 0.0), log_mel)


def test_overlay_adds_energies() -> None:
    mixed = overlay(torch.zeros(4, 2), torch.zeros(2, 2))
    assert torch.allclose(mixed[:2].exp(), torch.full((2, 2), 2.0)) and torch.equal(mixed[2:], torch.zeros(2, 2))

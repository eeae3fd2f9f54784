"""Tones and noises, each beside one that is known."""

import sys
from pathlib import Path

import numpy as np
import pytest


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

from everyday_bank import RATE
from everyday_damage import level_of
from everyday_plain import DIAL_TONES, KNOWN_LEVELS, KNOWN_TONES, LEVELS, TONES, noises, plain_pair, tones


def decibels(wave: np.ndarray) -> float:
    return 20 * np.log10(level_of(wave))


def loudest(wave: np.ndarray) -> float:
    """Frequency in Hz that a sound of a second has most of."""
    return float(np.abs(np.fft.rfft(wave)).argmax())


@pytest.mark.parametrize("samples", [3, 1600, RATE])
def test_a_pair_has_one_length_and_fits_a_file(samples: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        for wave in plain_pair(samples, rng):
            assert wave.shape == (samples,) and wave.dtype == np.float32 and np.abs(wave).max() <= 1


def test_half_of_the_tones_are_near_those_of_telephones() -> None:
    rng = np.random.default_rng(0)
    pairs = [tones(RATE, rng) for _ in range(60)]
    known, others = zip(*(map(loudest, pair) for pair in pairs), strict=True)
    assert KNOWN_TONES[0] <= min(known) and max(known) <= KNOWN_TONES[1]
    assert TONES[0] <= min(others) < 200 and 2000 < max(others) <= TONES[1]
    near = np.mean([DIAL_TONES[0] <= one <= DIAL_TONES[1] for one in others])
    assert 0.4 < near < 0.75


@pytest.mark.parametrize(("make", "level"), zip((tones, noises), KNOWN_LEVELS, strict=True))
def test_what_is_known_has_one_level_and_the_others_any(make, level: float) -> None:
    rng = np.random.default_rng(0)
    pairs = [make(RATE, rng) for _ in range(20)]
    assert all(decibels(known) == pytest.approx(level, abs=0.1) for known, _ in pairs)
    others = [decibels(other) for _, other in pairs]
    assert LEVELS[0] - 0.1 <= min(others) < -30 and -15 < max(others) <= LEVELS[1] + 0.1


def test_noises_are_white_to_brown() -> None:
    rng = np.random.default_rng(0)

    def lows(wave: np.ndarray) -> float:
        """Share of the energy below half of the band; half of it where noise is white."""
        energy = np.abs(np.fft.rfft(wave)) ** 2
        return float(energy[: len(energy) // 2].sum() / energy.sum())

    known, others = zip(*(map(lows, noises(RATE, rng)) for _ in range(20)), strict=True)
    assert max(abs(share - 0.5) for share in known) < 0.05
    assert min(others) < 0.7 and max(others) > 0.95

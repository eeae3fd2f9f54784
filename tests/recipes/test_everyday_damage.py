"""What was damaged is as long as before, of the same sounds at the same times, and no more than what the way says."""

import sys
from pathlib import Path

import numpy as np
import pytest


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import everyday_damage
from everyday_damage import RATE, WAYS, damage, level_of


SEEDS = range(12)
WAYS_ALONE = [way for _, way in WAYS]


@pytest.fixture
def wave() -> np.ndarray:
    """Three bursts of noise in a second and a half, each with another rhythm, and a tone below."""
    rng = np.random.default_rng(0)
    time = np.arange(3 * RATE // 2) / RATE
    gate = (time % 0.5 < 0.2) * (1 + time)
    return (0.1 * gate * rng.standard_normal(len(time)) + 0.05 * np.sin(2 * np.pi * 700 * time)).astype(np.float32)


def band(wave: np.ndarray, low: float, high: float) -> float:
    """Energy between two frequencies in Hz."""
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    return float((np.abs(np.fft.rfft(wave)) ** 2)[(hertz >= low) & (hertz < high)].sum())


def delay(wave: np.ndarray, other: np.ndarray) -> int:
    """Samples by which the other is late."""
    size = 2 * len(wave)
    alike = np.fft.irfft(np.fft.rfft(other, size) * np.conj(np.fft.rfft(wave, size)))
    place = int(np.argmax(np.abs(alike)))
    return place if place < len(wave) else place - size


@pytest.mark.parametrize("way", WAYS_ALONE, ids=lambda way: way.__name__)
def test_every_way_keeps_length_and_time(way, wave: np.ndarray) -> None:
    for seed in SEEDS:
        changed = way(wave, np.random.default_rng(seed))
        assert changed.shape == wave.shape and np.isfinite(changed).all()
        assert abs(delay(wave, changed)) <= 8, seed  # half a millisecond
        assert not np.array_equal(changed, wave)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_the_delay_of_the_lowest_rates_of_mp3_is_taken_away(wave: np.ndarray, level: float) -> None:
    assert abs(delay(wave, everyday_damage.coded(wave, "MP3", None, level))) <= 8


@pytest.mark.parametrize("coding", everyday_damage.TELEPHONE_CODECS)
def test_a_telephone_keeps_the_sign_of_what_is_as_loud_as_can_be(coding: str) -> None:
    square = np.sign(np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)).astype(np.float32)
    told = everyday_damage.by_telephone(square, coding)
    assert np.corrcoef(square, told)[0, 1] > 0.9


@pytest.mark.parametrize("length", [1600, 16_001])
@pytest.mark.parametrize("way", WAYS_ALONE, ids=lambda way: way.__name__)
def test_any_length_and_any_level(way, wave: np.ndarray, length: int) -> None:
    some = wave[:length] * 3
    for seed in SEEDS:
        changed = way(some, np.random.default_rng(seed))
        assert changed.shape == some.shape and np.isfinite(changed).all()


def test_nothing_is_made_of_what_a_filter_has_left_nothing_of(monkeypatch) -> None:
    ways = ((1.0, lambda wave, rng: wave * 1e-9), (1.0, everyday_damage.at_level))
    monkeypatch.setattr(everyday_damage, "WAYS", ways)
    assert np.abs(damage(np.ones(RATE, np.float32), np.random.default_rng(0))).max() < 1e-8


def test_above_half_of_a_lower_rate_nothing_is_left(wave: np.ndarray) -> None:
    for seed in SEEDS:
        changed = everyday_damage.at_rate(wave, np.random.default_rng(seed))
        assert band(changed, 6500, 8000) < 1e-4 * band(wave, 6500, 8000)
        assert band(changed, 0, 2500) == pytest.approx(band(wave, 0, 2500), rel=0.1)


def test_peaks_are_cut_off_and_the_rest_stays(wave: np.ndarray) -> None:
    for seed in SEEDS:
        changed = everyday_damage.too_loud(wave, np.random.default_rng(seed))
        loudness = np.median(changed[wave != 0] / wave[wave != 0])
        whole = np.abs(changed) < np.abs(changed).max() * 0.999
        np.testing.assert_allclose(changed[whole], (wave * loudness)[whole], rtol=1e-4)
        assert (~whole).sum() > 1


def test_a_level_has_steps_of_16_bits(wave: np.ndarray) -> None:
    peaks = []
    for seed in SEEDS:
        changed = everyday_damage.at_level(wave, np.random.default_rng(seed)) * 32767
        np.testing.assert_allclose(changed, np.round(changed), atol=1e-6)
        peaks.append(np.abs(changed).max())
    assert min(peaks) < 1000 < 10_000 < max(peaks) <= 32767


def test_noise_stays_below_the_sound(wave: np.ndarray) -> None:
    for seed in SEEDS:
        added = everyday_damage.in_noise(wave, np.random.default_rng(seed)) - wave
        assert 0.009 * level_of(wave) < level_of(added) < 0.57 * level_of(wave)  # 40 to 5 dB


def test_a_room_does_not_make_it_louder(wave: np.ndarray) -> None:
    for seed in SEEDS:
        changed = everyday_damage.in_room(wave, np.random.default_rng(seed))
        assert level_of(changed) == pytest.approx(level_of(wave), rel=1e-3)


def test_all_ways_are_taken_and_some_recordings_are_left_whole(wave: np.ndarray, monkeypatch) -> None:
    taken: list[str] = []
    counting = tuple(
        (share, lambda wave, rng, way=way: (taken.append(way.__name__), way(wave, rng))[1]) for share, way in WAYS
    )
    monkeypatch.setattr(everyday_damage, "WAYS", counting)
    changed = [damage(wave, np.random.default_rng(seed)) for seed in range(60)]
    assert {*taken} == {way.__name__ for way in WAYS_ALONE}
    assert 0 < sum(np.array_equal(wave, one) for one in changed) < 20
    assert all(one.dtype == np.float32 and np.abs(one).max() <= 1 for one in changed)


def test_a_seed_is_always_the_same_damage(wave: np.ndarray) -> None:
    one, same, other = (damage(wave, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_silence_stays_silence() -> None:
    for seed in SEEDS:
        assert not damage(np.zeros(RATE, np.float32), np.random.default_rng(seed)).any()

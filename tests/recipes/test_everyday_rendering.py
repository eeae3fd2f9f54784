"""Waves are what the plan says, and their log-mels those of the feature extractor."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_convert


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

from everyday_planning import Event, Plan, nothing
from everyday_rendering import BatchedFeatures, Renderer, fast_size

from processing_mac import MacFeatureExtractor


SAMPLES = 20_480  # of a window of 1.28 s
LENGTH = 9_000  # samples of each recording in the bank
FLAT = np.zeros(10, np.float32)


@pytest.fixture(scope="module")
def bank() -> np.ndarray:
    """Smooth noise of level 0.1, and what is hardly more than digital silence, (18000,) float16."""
    noise = np.random.default_rng(0).standard_normal(LENGTH + 20)
    smooth = np.convolve(noise, np.hanning(21), "valid")[:LENGTH]
    return np.concatenate([0.1 * smooth / smooth.std(), 1e-5 * smooth / smooth.std()]).astype(np.float16)


def event(**fields: Any) -> Event:
    """The whole first recording at its own speed, a quarter of a second after the start."""
    plain = nothing()._replace(used=LENGTH, period=LENGTH, start=4000, length=LENGTH, gain=1.0, curve=FLAT)
    return plain._replace(**fields)


def plan(*events: Event, scenes: int = 1, peak: float = 0.5, floor: float = 0.0, length: int = SAMPLES) -> Plan:
    fields = Event(*(np.array(field) for field in zip(*events, strict=True)))
    levels = (np.full(scenes, value, np.float32) for value in (peak, floor))
    spans = np.array([[0, 0, 1]]), np.zeros((1, 2), np.float32), np.ones(1, np.float32)
    return default_convert(Plan(fields, np.full(scenes, length), *levels, *spans))


def test_a_lone_event_is_the_recording_at_the_level(bank: np.ndarray) -> None:
    [wave] = Renderer(bank, SAMPLES)(plan(event(), nothing()))
    assert (
        wave.abs().max() == pytest.approx(0.5) and wave[:4000].abs().max() < 1e-6 and wave[13_000:].abs().max() < 1e-6
    )
    recording = torch.from_numpy(bank[:LENGTH]).float()
    inner = slice(200, LENGTH - 200)  # within what fades in and out
    scale = wave[4000:13_000][inner].norm() / recording[inner].norm()
    torch.testing.assert_close(wave[4000:13_000][inner], scale * recording[inner], atol=1e-5, rtol=1e-4)


def test_twice_the_speed_is_half_the_length(bank: np.ndarray) -> None:
    [wave] = Renderer(bank, SAMPLES)(plan(event(speed=2.0, period=4 * LENGTH)))
    assert wave[4000 + LENGTH // 2 :].abs().max() < 1e-6 and wave[4000 + LENGTH // 2 - 400 :].abs().max() > 0.05
    every_second = torch.from_numpy(bank[:LENGTH:2]).float()
    together = torch.stack([wave[4000 : 4000 + LENGTH // 2], every_second])[:, 200:-200]
    assert torch.corrcoef(together)[0, 1] > 0.9999


def test_between_samples_it_follows_the_curve() -> None:
    time = np.arange(LENGTH) / 16_000
    wave = (0.1 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    [slow] = Renderer(wave, SAMPLES)(plan(event(speed=0.7)))
    expected = torch.from_numpy(np.sin(2 * np.pi * 440 * 0.7 * np.arange(LENGTH) / 16_000)).float()
    torch.testing.assert_close(slow[4000:13_000][400:-400], 0.5 * expected[400:-400], atol=2e-3, rtol=0)


def test_backwards_is_backwards(bank: np.ndarray) -> None:
    [wave] = Renderer(bank, SAMPLES)(plan(event(backwards=True)))
    together = torch.stack([wave[4000:13_000].flip(0), torch.from_numpy(bank[:LENGTH]).float()])[:, 200:-200]
    assert torch.corrcoef(together)[0, 1] > 0.9999


def test_a_short_one_is_repeated_after_its_pause(bank: np.ndarray) -> None:
    [wave] = Renderer(bank, SAMPLES)(plan(event(used=3000, period=4000, length=7000)))
    torch.testing.assert_close(wave[4000:6900], wave[8000:10_900], atol=1e-5, rtol=1e-4)
    assert wave[7000:8000].abs().max() < 1e-6 and wave[4000:7000].abs().max() > 0.1


def test_events_stand_at_their_levels(bank: np.ndarray) -> None:
    faint = event(start=12_000, length=4000, used=4000, gain=0.1)
    [wave] = Renderer(bank, SAMPLES)(plan(event(start=0, length=4000, used=4000), faint))
    assert wave[12_000:16_000].norm() / wave[:4000].norm() == pytest.approx(0.1, rel=1e-3)


def test_silence_stays_silent(bank: np.ndarray) -> None:
    silent = event(window=1, base=LENGTH, silent=True)
    waves = Renderer(bank, SAMPLES)(plan(event(), silent, scenes=2, floor=0.01))
    assert waves[1].abs().max() < 5e-5 and waves[0, :3000].std() == pytest.approx(0.01, rel=0.05)


def test_a_filter_takes_what_it_should() -> None:
    time = np.arange(LENGTH) / 16_000
    low, high = (np.sin(2 * np.pi * hertz * time) for hertz in (200, 6000))
    muffled = np.where(np.arange(10) < 7, 0, -60).astype(np.float32)
    [wave] = Renderer((0.1 * (low + high)).astype(np.float32), SAMPLES)(plan(event(curve=muffled)))
    spectrum = torch.fft.rfft(wave[5000:9000]).abs()
    assert spectrum[1500] < 0.003 * spectrum[50]  # 6 kHz and 200 Hz


def test_a_room_goes_on_after_the_sound(bank: np.ndarray) -> None:
    dry, wet = (Renderer(bank, SAMPLES)(plan(event(echo=echo, wetness=1.0)))[0] for echo in (0.0, 1.0))
    after = wet[13_000:].view(-1, 1496).std(1)
    assert dry[13_000:].abs().max() < 1e-6 and after[0] > 0.01 and after[-1] < 0.5 * after[0]


def test_no_echo_comes_back_at_the_start(bank: np.ndarray) -> None:
    [wave] = Renderer(bank, SAMPLES)(plan(event(start=11_000, echo=1.0, wetness=1.0)))
    assert wave[:11_000].abs().max() < 1e-6


def test_one_seed_gives_one_rendering(bank: np.ndarray) -> None:
    renderer, waves = Renderer(bank, SAMPLES), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        waves.append(renderer(plan(event(echo=0.5, wetness=0.5), floor=0.01)))
    assert torch.equal(waves[0], waves[1]) and not torch.equal(waves[0], waves[2])


def test_log_mels_are_those_of_the_extractor(bank: np.ndarray) -> None:
    extractor = MacFeatureExtractor(window_frames=128)
    waves = torch.zeros(3, SAMPLES)
    lengths = torch.tensor([SAMPLES, 17_001, 16_000])
    for wave, length in zip(waves, lengths, strict=True):
        wave[:length] = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(0)) + 0.02
    windows, frames = BatchedFeatures(extractor)(waves, lengths)
    assert frames.tolist() == [126, 104, 98]
    for wave, length, window in zip(waves, lengths, windows, strict=True):
        expected = extractor.to_windows(extractor.raw_log_mel(wave[:length].numpy()))[0]
        torch.testing.assert_close(window, expected, atol=1e-4, rtol=0)


def test_sizes_are_those_that_transforms_like() -> None:
    assert [fast_size(size) for size in (1, 7, 31, 1001, 179_840)] == [1, 8, 32, 1024, 180_000]

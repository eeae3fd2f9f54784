"""Changes to a raw log-mel spectrogram, (frames, mel bins) of natural-log energies, that keep what is heard."""

import math

import numpy as np
import torch
from torch import nn

from processing_mac.feature_extraction_mac import DECIBEL, ENERGY_FLOOR


FLOOR = math.log(ENERGY_FLOOR)  # natural-log energy of digital silence


def change_timbre(
    log_mel: torch.Tensor, rng: np.random.Generator, tilt_db: float = 8.0, gain_db: float = 6.0
) -> torch.Tensor:
    """Change the sound as another microphone would: tilt up to +-`tilt_db` at the ends, level up to +-`gain_db`."""
    tilt = torch.linspace(-1, 1, log_mel.shape[1]) * float(rng.uniform(-tilt_db, tilt_db)) * DECIBEL
    return (log_mel + tilt + float(rng.uniform(-gain_db, gain_db)) * DECIBEL).clamp(min=FLOOR)


def turn_in_time(log_mel: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Start the recording elsewhere and put its beginning at its end."""
    return torch.roll(log_mel, int(rng.integers(len(log_mel))), dims=0)


def stretch(log_mel: torch.Tensor, rng: np.random.Generator, tempo: float, pitch: float) -> torch.Tensor:
    """
    Make a recording faster or slower by a factor of up to 1 + `tempo`, and higher or lower by up to 1 + `pitch` on the
    mel scale.

    Returns:
        (new frames, mel bins); bins above those of the recording repeat its highest.
    """
    frames, bins = (
        max(1, round(size * (1 + most) ** float(rng.uniform(-1, 1))))
        for size, most in zip(log_mel.shape, (tempo, pitch), strict=True)
    )
    stretched = nn.functional.interpolate(log_mel[None, None], (frames, bins), mode="bilinear")[0]
    missing = max(0, log_mel.shape[1] - bins)
    return nn.functional.pad(stretched, (0, missing), mode="replicate")[0, :, : log_mel.shape[1]]


def excerpt(log_mel: torch.Tensor, rng: np.random.Generator, frames: int) -> torch.Tensor:
    """Cut at most `frames` frames from anywhere in a recording."""
    if len(log_mel) <= frames:
        return log_mel
    start = int(rng.integers(len(log_mel) - frames + 1))
    return log_mel[start : start + frames]


def mask_stripes(
    log_mel: torch.Tensor, rng: np.random.Generator, fill: float, frames: int = 64, bins: int = 8
) -> torch.Tensor:
    """
    Mask as SLAM-AAC's SpecAugment does: 2 stripes of up to `frames` and 2 of up to `bins`.

    It fills them with `fill`, the log-mel that the front end makes 0, and so with the mean of the data and not of the
    recording.
    """
    log_mel = log_mel.clone()
    for _ in range(2):
        width = int(rng.integers(min(frames, len(log_mel)) + 1))
        start = int(rng.integers(len(log_mel) - width + 1))
        log_mel[start : start + width] = fill
        width = int(rng.integers(bins + 1))
        start = int(rng.integers(log_mel.shape[1] - width + 1))
        log_mel[:, start : start + width] = fill
    return log_mel


def overlay(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Lay two sounds over each other: their energies add, and the shorter one ends early."""
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    mixed = longer.clone()
    mixed[: len(shorter)] = torch.logaddexp(longer[: len(shorter)], shorter)
    return mixed

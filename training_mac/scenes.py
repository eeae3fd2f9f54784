"""
Training windows made of one or two recordings: alone, one after the other, or both at once.

A scene carries its caption and where in it each source sounds. Every random choice derives from seed, epoch and row,
so that a run repeats whatever the number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from processing_mac.dataset_mac import Clip
from training_mac.augmentation import DECIBEL, change_timbre, mask_stripes, overlay, turn_in_time


SILENCE_AND_NOISE = ("silence", "noise")  # sources that are no part of a scene of two


def load_log_mels(clips: Sequence[Clip], extractor: Any, max_frames: int) -> list[torch.Tensor]:
    """Decode every recording once: raw log-mel (frames, mel bins) float16, at most `max_frames`, kept in memory."""
    log_mels = []
    for clip in tqdm(clips, desc="log-mel", unit="clip"):
        log_mel = extractor.raw_log_mel(extractor.load(clip.audio)[0])
        log_mels.append(log_mel[:max_frames].half())
    return log_mels


@dataclass
class Scene:
    """Raw log-mel (frames, mel bins), its caption, and (first frame, end frame, source) of what sounds in it."""

    log_mel: torch.Tensor
    caption: str
    spans: list[tuple[int, int, str | None]]


class SceneDataset(Dataset):
    """
    Augmented scenes; item i is built around clip i.

    Args:
        clips: The manifest.
        log_mels: Their raw log-mels, see `load_log_mels`.
        extractor: The feature extractor: window length, padding and normalisation.
        join_probability: How often a second recording follows the first.
        overlay_probability: How often a second recording sounds at the same time.
        seed: Of every random choice.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        log_mels: Sequence[torch.Tensor],
        extractor: Any,
        join_probability: float = 0.0,
        overlay_probability: float = 0.0,
        seed: int = 0,
    ):
        self.clips = clips
        self.log_mels = log_mels
        self.extractor = extractor
        self.join_probability = join_probability
        self.overlay_probability = overlay_probability
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader at the start of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, row: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, self.epoch, row])
        scene = self.compose(row, rng)
        window = self.extractor.to_windows(mask_stripes(scene.log_mel, rng))[:1]
        audio = self.clips[row].audio
        return {"input_features": window, "caption": scene.caption, "audio": audio, "spans": scene.spans}

    def compose(self, row: int, rng: np.random.Generator) -> Scene:
        """One recording, or two of different sources."""
        kind = rng.random()
        alone = self.clips[row].source in SILENCE_AND_NOISE
        if alone or kind >= self.join_probability + self.overlay_probability:
            return self.single(row, rng)
        other = self.draw_other(row, rng)
        return self.joined(row, other, rng) if kind < self.join_probability else self.overlaid(row, other, rng)

    def draw_other(self, row: int, rng: np.random.Generator) -> int:
        """A clip of another source, neither silence nor noise."""
        while True:
            other = int(rng.integers(len(self.clips)))
            if self.clips[other].source not in (self.clips[row].source, *SILENCE_AND_NOISE):
                return other

    def recording(self, row: int, rng: np.random.Generator) -> torch.Tensor:
        """
        A clip as another microphone would have caught it: whole, or half the time cut to 0.5 … 1 of its length.

        One, two in a row and two at once are cut alike, so that a scene's length does not tell which it is.
        """
        log_mel = self.log_mels[row].float()
        if self.clips[row].source == "silence":
            return log_mel
        log_mel = change_timbre(turn_in_time(log_mel, rng), rng)
        share = 1.0 if rng.random() < 0.5 else rng.uniform(0.5, 1.0)
        return log_mel[: max(1, round(len(log_mel) * share))]

    def single(self, row: int, rng: np.random.Generator) -> Scene:
        """One recording; now and then it goes on until the window is full."""
        log_mel, frames = self.recording(row, rng), self.extractor.window_frames
        if rng.random() < 0.15:
            log_mel = log_mel.repeat(-(-frames // len(log_mel)), 1)
        log_mel = log_mel[:frames]
        return Scene(log_mel, pick(self.clips[row].captions, rng), [(0, len(log_mel), self.clips[row].source)])

    def joined(self, first: int, second: int, rng: np.random.Generator) -> Scene:
        """X, followed by Y."""
        before, after = self.recording(first, rng), self.recording(second, rng)
        log_mel = torch.cat([before, after])[: self.extractor.window_frames]
        caption = f"{pick(self.clips[first].captions, rng)}, followed by {pick(self.clips[second].phrases, rng)}"
        spans = [
            (0, len(before), self.clips[first].source),
            (len(before), len(log_mel), self.clips[second].source),
        ]
        return Scene(log_mel, caption, spans)

    def overlaid(self, first: int, second: int, rng: np.random.Generator) -> Scene:
        """X while Y: X, which is up to 5 dB stronger, is told first."""
        levels = [self.recording(row, rng) for row in (first, second)]
        means = [level.exp().mean().log() for level in levels]
        difference = means[0] - means[1] - float(rng.uniform(0, 5)) * DECIBEL
        log_mel = overlay(levels[0], levels[1] + difference)
        caption = f"{pick(self.clips[first].captions, rng)} while {pick(self.clips[second].captions, rng)}"
        return Scene(log_mel, caption, [(0, len(log_mel), self.clips[row].source) for row in (first, second)])


def pick(texts: Sequence[str], rng: np.random.Generator) -> str:
    """One of several wordings."""
    return texts[int(rng.integers(len(texts)))]

"""
Training examples made of one or two recordings: one alone, one after the other, or both at once.

A scene carries its caption and the places in it where each source sounds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from processing_mac.dataset_mac import Clip
from training_mac.data.paraphrases import load_paraphrases
from training_mac.examples.augmentation import (
    DECIBEL,
    change_timbre,
    excerpt,
    mask_stripes,
    overlay,
    stretch,
    turn_in_time,
)
from training_mac.recipe.data_fields import DataRecipe


Recording = tuple[Clip, torch.Tensor]  # a clip with its raw log-mel, (frames, mel bins)


@dataclass
class Scene:
    """A raw log-mel (frames, mel bins), its caption, and (first frame, end frame, source) of each sound in it."""

    log_mel: torch.Tensor
    caption: str
    spans: list[tuple[int, int, str | None]]


class SceneMaker:
    """
    Varies recordings and their wording, and puts two of them together as the recipe says.

    Args:
        data: Data fields of the recipe, which switch the augmentations.
        extractor: Feature extractor that gives window length, padding and normalisation.
    """

    def __init__(self, data: DataRecipe, extractor: Any):
        self.data = data
        self.extractor = extractor
        self.paraphrases = load_paraphrases(data.paraphrases)
        self.most_frames = None if data.max_windows is None else data.max_windows * extractor.window_frames

    def example(self, scene: Scene, clip: Clip, rng: np.random.Generator) -> dict[str, Any]:
        """Make a scene an example, the dict that a collator takes; `clip` is the one the scene was made around."""
        log_mel, frames = scene.log_mel, self.extractor.window_frames
        if self.data.spec_augment:
            log_mel = torch.cat([mask_stripes(window, rng, self.extractor.mean) for window in log_mel.split(frames)])
        return {
            "input_features": self.extractor.to_windows(log_mel),
            "caption": scene.caption,
            "prompt": clip.prompt,
            "audio": str(clip.audio),
            "spans": scene.spans,
        }

    def draw_kind(self, clip: Clip, rng: np.random.Generator) -> str:
        """Draw how a scene is made, as the name of a method: 'single', 'joined', 'overlaid' or 'background'."""
        kind = rng.random()
        if clip.scene or kind >= self.data.share_of_two:
            return "single"
        if kind < self.data.join_probability:
            return "joined"
        return "overlaid" if kind < self.data.join_probability + self.data.overlay_probability else "background"

    def vary(self, recording: Recording, rng: np.random.Generator) -> torch.Tensor:
        """
        Change a recording as if another microphone had caught it; half the time it is cut, else it stays whole.

        Scenes of one recording, of two in a row and of two at once are cut alike, so that a scene's length does not
        tell which of these it is.
        """
        clip, log_mel = recording[0], recording[1].float()
        if self.data.tempo or self.data.pitch:
            log_mel = stretch(log_mel, rng, self.data.tempo, self.data.pitch)
        if self.most_frames is not None:
            log_mel = excerpt(log_mel, rng, self.most_frames)
        if clip.scene == "silence":
            return log_mel
        if self.data.time_shift:
            log_mel = turn_in_time(log_mel, rng)
        if self.data.gain_db or self.data.tilt_db:
            log_mel = change_timbre(log_mel, rng, self.data.tilt_db, self.data.gain_db)
        if self.data.min_excerpt < 1 and rng.random() >= 0.5:
            log_mel = log_mel[: max(1, round(len(log_mel) * rng.uniform(self.data.min_excerpt, 1.0)))]
        return log_mel

    def word(self, clip: Clip, rng: np.random.Generator) -> str:
        """Draw one of a clip's captions or, as often as the recipe says, a paraphrase of that caption."""
        caption = pick(clip.captions, rng)
        if (others := self.paraphrases.get(caption)) and rng.random() < self.data.share_paraphrased:
            return pick(others, rng)
        return caption

    def single(self, recording: Recording, rng: np.random.Generator) -> Scene:
        """Make a scene of one recording; now and then it repeats until the window is full."""
        clip, frames = recording[0], self.extractor.window_frames
        log_mel = self.vary(recording, rng)
        repeated = self.data.repeat_probability and rng.random() < self.data.repeat_probability
        if repeated and len(log_mel) < frames:
            log_mel = log_mel.repeat(-(-frames // len(log_mel)), 1)[:frames]
        return Scene(log_mel, self.word(clip, rng), [(0, len(log_mel), clip.source)])

    def joined(self, first: Recording, second: Recording, rng: np.random.Generator) -> Scene:
        """Make a scene of X, followed by Y; its caption is "X, then Y" where there are no phrases."""
        before, after = self.vary(first, rng), self.vary(second, rng)
        if self.most_frames is not None:  # of all that the caption tells, a part must be heard
            before = before[: max(1, self.most_frames - min(len(after), self.most_frames // 4))]
        log_mel = torch.cat([before, after])[: self.most_frames]
        caption = end_clause(self.word(first[0], rng))
        if second[0].phrases:
            caption = f"{caption}, followed by {pick(second[0].phrases, rng)}"
        else:
            caption = f"{caption}, then {begin_clause(self.word(second[0], rng))}"
        spans = [(0, len(before), first[0].source), (len(before), len(log_mel), second[0].source)]
        return Scene(log_mel, caption, spans)

    def overlaid(self, first: Recording, second: Recording, rng: np.random.Generator) -> Scene:
        """Make a scene of X while Y, whose caption tells X first, which is up to 5 dB stronger."""
        log_mel = self.mix(first, second, float(rng.uniform(0, 5)), rng)
        caption = end_clause(self.word(first[0], rng))
        caption = f"{caption} while {begin_clause(self.word(second[0], rng))}"
        return Scene(log_mel, caption, [(0, len(log_mel), recording[0].source) for recording in (first, second)])

    def background(self, first: Recording, second: Recording, rng: np.random.Generator) -> Scene:
        """Make a scene of X with Y so faint behind it that nobody would mention Y."""
        log_mel = self.mix(first, second, float(rng.uniform(10, 25)), rng)
        return Scene(log_mel, self.word(first[0], rng), [(0, len(log_mel), first[0].source)])

    def mix(self, first: Recording, second: Recording, decibels: float, rng: np.random.Generator) -> torch.Tensor:
        """Lay both recordings over each other, the second `decibels` weaker than the first."""
        levels = [self.vary(recording, rng) for recording in (first, second)]
        # Means of row means, since the number of threads changes the last bit of others.
        means = [level.exp().mean(dim=1).mean().log() for level in levels]
        return overlay(levels[0], levels[1] + (means[0] - means[1] - decibels * DECIBEL))


def may_meet(first: Clip, second: Clip) -> bool:
    """Whether a scene of both is worth a caption: different sounds, the second neither silence nor noise."""
    same = first.audio is second.audio or (isinstance(first.audio, str) and first.audio == second.audio)
    if second.scene or same:
        return False
    return first.source is None or first.source != second.source


def pick(texts: Sequence[str], rng: np.random.Generator) -> str:
    """Draw one of several wordings."""
    return texts[int(rng.integers(len(texts)))]


def end_clause(caption: str) -> str:
    """Turn a caption into a clause after which a sentence goes on."""
    return caption.rstrip(" .")


def begin_clause(caption: str) -> str:
    """Turn a caption into the middle of a sentence: no capital, unless its first word is "I" or all in capitals."""
    keeps_capital = re.match(r"I\b|[A-Z]{2}", caption)
    return caption if keeps_capital else caption[:1].lower() + caption[1:]

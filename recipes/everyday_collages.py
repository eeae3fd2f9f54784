"""
What a language model learns to tell: scores of tags, of scenes and of collages of them, with captions by the grammar.

Encoding a scene takes seconds, and a collage of scores no time at all: single sounds, each a stretch of some scene's
rows, are put one after another, up to a minute, so that no order of sounds is met twice. Which scores a scene has is
said by `everyday_honest.py`, what is told of them by `everyday_told.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from everyday_grammar import Grammar
from everyday_honest import Evidence
from everyday_mixed import Scene
from everyday_rows import padding_of
from everyday_told import Teller, Told, relation_of
from mix_everyday import AT_ONCE


# Shares of the examples. The others are scenes as they are, for collages have no two sounds at once and no borders
# that an encoder has smoothed.
SHORT, LONG = 0.2, 0.16  # collages of a window, and of up to six
UNKNOWN = 0.07  # of the scenes: those of a kind that nobody has learnt, a few, for each makes telling in general usual
UNKNOWN_SOUNDS = 0.12  # of the sounds in collages whose kind has such scenes
# Weights of scenes by their relation, where not 1: two at once are what the collages lack. People record speech over
# something more often than any other two sounds.
WEIGHTS, SPEECH_AT_ONCE = {"while": 1.4, "single": 1.1}, 1.8
# How many sounds collages have, and how likely; two follow each other in most of what is asked of a window.
SHORT_COUNTS = {1: 0.1, 2: 0.72, 3: 0.18}
LONG_COUNTS = {1: 0.1, 2: 0.2, 3: 0.25, 4: 0.45}
# Least and greatest length of a sound in windows, by how many there are: together they fill one at most, or six.
SHORT_LENGTHS = {1: (0.05, 0.33), 2: (0.125, 0.5), 3: (0.125, 0.33)}
LONG_LENGTH = (0.28, 1.5)
HALVES, HALF = 0.4, 0.49  # share of the pairs of sounds that are both as long as two recordings of five seconds
AGAIN, AGAIN_LENGTH = 0.5, (0.1, 0.5)  # share of single sounds with another recording of their kind after them
# Share of the collages that have pauses, of the sounds in these that have one after them, and its length in windows.
# Silence is no sound there: a recording that fades out is not "a dog, and then silence".
WITH_PAUSES, PAUSES, PAUSE_LENGTH = 0.4, 0.5, (0.016, 0.14)
WINDOWS = 6  # of a collage at most
# An encoder that was taught tags is surer than a regression, and nobody knows by how much before it hears something
# new, so each example has another scale and offset, and its tags up to so much noise.
SCALES, OFFSETS, NOISE = (0.9, 1.3), (-0.5, 0.5), 0.3
# What is below this score is not heard. A regression tells of it that it is rare, the encoder how unlike it is.
UNHEARD, DEPTHS = -3.0, (1.0, 2.2)
SILENCE = "silence"
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Example:
    """Scores of the tags in the rows of whole windows, (rows, tags), and a caption of them."""

    scores: torch.Tensor
    caption: str


class Examples:
    """
    Draws examples.

    Args:
        scenes: Scenes.
        evidence: Scores of their rows.
        grammar: Grammar that makes the captions.
        rows: Number of rows in a window.

    Raises:
        ValueError: The scenes have fewer than two kinds of sound that are heard alone, or no padding.
    """

    def __init__(self, scenes: Sequence[Scene], evidence: Evidence, grammar: Grammar, rows: int):
        self.grammar, self.rows, teller = grammar, rows, Teller(grammar)
        self.scenes: list[Told] = []
        self.sounds: dict[str, list[Told]] = {}  # of each kind, stretches in which it is heard alone
        self.unknown: list[Told] = []  # scenes of a kind that nobody has learnt, and of each kind the sounds in them
        self.unknown_sounds: dict[str, list[Told]] = {}
        for scene, scores, heard in zip(scenes, evidence.scores, evidence.heard, strict=True):
            self.scenes.append(teller.tell(scene, scores, heard))
            collect(self.sounds, teller.sounds_of(scene, scores, heard))
        for number, scores in evidence.unknown.items():
            self.unknown.append(teller.tell_unknown(scenes[number], scores))
            collect(
                self.unknown_sounds, teller.sounds_of(scenes[number], scores, evidence.heard[number], unknown=True)
            )
        tails = (padding_of(scores, heard) for scores, heard in zip(evidence.scores, evidence.heard, strict=True))
        self.tails = [tail for tail in tails if len(tail)]
        self.pauses = self.sounds.pop(SILENCE, [])
        if len(self.sounds) < 2 or not self.tails:
            raise ValueError(
                f"The scenes have {len(self.sounds)} kinds of sound that are heard alone for a second, and "
                f"{len(self.tails)} of them end a second before their window does: expected two at least, and one."
            )
        weights = np.array([self.weight(*one) for one in zip(scenes, self.scenes, strict=True)])
        self.chances = weights / weights.sum()
        # As often as the root of how many there are: the seldom ones more often, yet none over and over.
        roots = np.array([len(sounds) ** 0.5 for sounds in self.sounds.values()])
        self.kinds, self.kind_chances = list(self.sounds), roots / roots.sum()

    def weight(self, scene: Scene, told: Told) -> float:
        """Say how often a scene is drawn, beside others."""
        speech = told.relation in AT_ONCE and any(
            "speech" in self.grammar.tags_of(kind) for kind, _, _ in scene.events
        )
        return WEIGHTS.get(told.relation, 1.0) * (SPEECH_AT_ONCE if speech else 1.0)

    def draw(self, rng: np.random.Generator) -> Example:
        """Draw an example: a scene or a collage, with other words and slightly other scores each time."""
        which = rng.random()
        told = self.draw_collage(which < LONG, rng) if which < SHORT + LONG else self.draw_scene(rng)
        return Example(vary(told.scores.float(), rng), self.grammar.tell(told.names, told.relation, rng))

    def draw_scene(self, rng: np.random.Generator) -> Told:
        """Draw a scene, at times one of a kind that nobody has learnt."""
        if self.unknown and rng.random() < UNKNOWN:
            return choose(self.unknown, rng)
        return self.scenes[int(rng.choice(len(self.scenes), p=self.chances))]

    def draw_collage(self, long: bool, rng: np.random.Generator) -> Told:
        """Put sounds one after another, of other kinds than their neighbours, and padding after them."""
        counts = LONG_COUNTS if long else SHORT_COUNTS
        count = int(rng.choice(list(counts), p=list(counts.values())))
        lengths = [self.draw_length(LONG_LENGTH if long else SHORT_LENGTHS[count], rng) for _ in range(count)]
        if count == 2 and not long and rng.random() < HALVES:
            lengths = [int(HALF * self.rows)] * 2
        sounds = [self.draw_sound(kind, rng) for kind in self.draw_kinds(count, rng)]
        parts = [fill(sound.scores, length, rng) for sound, length in zip(sounds, lengths, strict=True)]
        if count == 1 and sounds[0].names[0] in self.sounds and rng.random() < AGAIN:
            again = choose(self.sounds[sounds[0].names[0]], rng)
            parts.append(fill(again.scores, self.draw_length(AGAIN_LENGTH, rng), rng))
        if self.pauses and rng.random() < WITH_PAUSES:
            parts = [one for part in parts for one in (part, self.draw_pause(rng))]
        names = [name for sound in sounds for name in sound.names]
        scores = torch.cat(parts)[: self.rows * (WINDOWS if long else 1)]
        return Told(self.pad(scores, rng), names, relation_of(names)).merge()

    def draw_pause(self, rng: np.random.Generator) -> torch.Tensor:
        """Draw what may stand after a sound: silence, or nothing, (rows, tags)."""
        pause = choose(self.pauses, rng).scores
        return fill(pause, self.draw_length(PAUSE_LENGTH, rng), rng) if rng.random() < PAUSES else pause[:0]

    def draw_length(self, windows: tuple[float, float], rng: np.random.Generator) -> int:
        """Draw a number of rows between two shares of a window."""
        return max(1, int(self.rows * rng.uniform(*windows)))

    def draw_kinds(self, count: int, rng: np.random.Generator) -> list[str]:
        """Draw kinds of which no two neighbours are the same."""
        kinds: list[str] = []
        while len(kinds) < count:
            kind = self.kinds[int(rng.choice(len(self.kinds), p=self.kind_chances))]
            if kinds[-1:] != [kind]:
                kinds.append(kind)
        return kinds

    def draw_sound(self, kind: str, rng: np.random.Generator) -> Told:
        """Draw a sound of a kind, at times as one hears it who has not learnt the kind."""
        unknown = kind in self.unknown_sounds and rng.random() < UNKNOWN_SOUNDS
        return choose((self.unknown_sounds if unknown else self.sounds)[kind], rng)

    def pad(self, scores: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Fill up the last window of scores (rows, tags) with the padding of some scene."""
        tail = choose(self.tails, rng)
        return torch.cat([scores, tail[torch.arange(-len(scores) % self.rows) % len(tail)]])


def collect(sounds: dict[str, list[Told]], more: Sequence[tuple[str, Told]]) -> None:
    """Put more sounds to those of their kind."""
    for kind, told in more:
        sounds.setdefault(kind, []).append(told)


def choose(some: Sequence[Item], rng: np.random.Generator) -> Item:
    """Draw one of some."""
    return some[int(rng.integers(len(some)))]


def fill(scores: torch.Tensor, length: int, rng: np.random.Generator) -> torch.Tensor:
    """Make scores (rows, tags) of another length: a part from anywhere in them, or all of them over and over."""
    if len(scores) < length:
        return scores[torch.arange(length) % len(scores)]
    first = int(rng.integers(len(scores) - length + 1))
    return scores[first : first + length]


def vary(scores: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Make scores (rows, tags) as sure as those of another encoder, of all tags and of each."""
    noise = torch.from_numpy(rng.standard_normal(scores.shape[1], np.float32)) * NOISE * float(rng.random())
    scores = scores.where(scores > UNHEARD, UNHEARD + (scores - UNHEARD) * float(rng.uniform(*DEPTHS)))
    return scores * float(rng.uniform(*SCALES)) + float(rng.uniform(*OFFSETS)) + noise

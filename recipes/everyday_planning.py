"""
Plans of scenes: which recording is heard in which window from when to when, how it is varied, and what may be told.

A plan is numbers alone, so that processes beside the training make it while the device renders the last one
(`everyday_rendering.py`). Scenes vary more than those of `mix_everyday.py`, since each is heard once.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from everyday_bank import PLAIN, RATE, SHORTEST, Recording


PATCH = 2560  # samples from one row of the encoder's patches to the next, 0.16 s
BANDS = 10  # places of a filter's curve, from 40 Hz to 8 kHz in equal steps of pitch
UNKNOWN = 0.3  # weight of recordings of which nobody knows the kind
SHARES = {"alone": 0.42, "in turn": 0.15, "at once": 0.34, "three in turn": 0.045, "three at once": 0.045}
COUNTS = {"alone": 1, "in turn": 2, "at once": 2}  # recordings in a scene, else three
SHORTEST_SCENE = 2 * RATE // 5  # samples; in a window of ten seconds 3 % of the scenes are shorter than a second
SHORTEST_SPAN = 0.3 * RATE  # samples; what is heard for a shorter time is not asked for
FAINTEST = -14.0  # decibels, compared with the first of several at once, below which nobody must notice a sound
STEADY = 32  # numbers of events are multiples of this, for each size of a batch costs a plan of Fourier transforms
MOST_DRAWS = 20  # of another kind, before a scene makes do with fewer


class Event(NamedTuple):
    """
    A recording in a scene. In a `Plan` each field is an array of all events, (events,), and `curve` (events, 10).

    Args:
        window: Number of the scene.
        base: First sample in the bank that is read.
        used: Number of samples of the bank that are read.
        period: Samples of the bank after which it starts again: `used`, and a pause where it is repeated.
        speed: Samples of the bank for each sample of the scene.
        backwards: Whether it is read from its end to its start.
        start: Sample of the scene at which it starts.
        length: Number of samples of the scene in which it is heard.
        gain: Factor of its level.
        echo: Seconds in which the echo of its room falls by 60 dB; 0 for none.
        wetness: Level of the echo compared with the sound itself.
        silent: Whether it is digital silence, which nothing must be added to.
        curve: Gain in decibels of its filter at 40 Hz to 8 kHz, (10,).
    """

    window: Any
    base: Any
    used: Any
    period: Any
    speed: Any
    backwards: Any
    start: Any
    length: Any
    gain: Any
    echo: Any
    wetness: Any
    silent: Any
    curve: Any

    @property
    def end(self) -> Any:
        return self.start + self.length


class Heard(NamedTuple):
    """An event, its level in decibels, and the tags that are told of it; None if none may be."""

    event: Event
    decibels: float
    tags: Sequence[int] | None


class Scene(NamedTuple):
    """What is heard in a window, its number of samples, its peak, and the level of the noise below it."""

    heard: list[Heard]
    length: int
    peak: float
    floor: float


class Plan(NamedTuple):
    """
    A batch of scenes.

    Args:
        events: All events, each field an array.
        lengths: Number of samples of each scene, (scenes,).
        peaks: Peak of each scene, (scenes,).
        floors: Level of the noise in each scene, (scenes,).
        spans: Scene, first patch row and end patch row of each stretch in which the same is heard, (spans, 3).
        labels: 1 where a tag is heard and 0 elsewhere, (spans, tags).
        known: 1 if the labels are all that is heard, and 0 if something unknown is, too, (spans,).
    """

    events: Event
    lengths: Any
    peaks: Any
    floors: Any
    spans: Any
    labels: Any
    known: Any


class Planner:
    """
    Plans batches of scenes.

    Args:
        recordings: Recordings of a bank.
        tags: Number of tags.
        batch: Number of scenes in a plan.
        samples: Length of the longest scenes, of at least a second, in samples at 16 kHz.
    """

    def __init__(self, recordings: Sequence[Recording], tags: int, batch: int, samples: int):
        self.recordings, self.tags, self.batch, self.samples = recordings, tags, batch, samples
        kinds, counts = np.unique([one.kind for one in recordings], return_counts=True)
        seldom = dict(zip(kinds, counts**-0.5, strict=True))  # so that speech is not all there is
        weights = [seldom[one.kind] * (1 if one.kind else UNKNOWN) for one in recordings]
        self.cumulated = np.cumsum(weights) / np.sum(weights)

    def plan(self, rng: np.random.Generator) -> Plan:
        """Plan a batch."""
        scenes = [self.draw_scene(window, rng) for window in range(self.batch)]
        events = [heard.event for scene in scenes for heard in scene.heard]
        events += [nothing()] * (-len(events) % STEADY)
        spans = [span for window, scene in enumerate(scenes) for span in cut_up(scene, window)]
        told = [told_of(heard, self.tags) for _, heard in spans]
        return Plan(
            events=Event(*(np.array(field) for field in zip(*events, strict=True))),
            lengths=np.array([scene.length for scene in scenes]),
            peaks=np.array([scene.peak for scene in scenes], np.float32),
            floors=np.array([scene.floor for scene in scenes], np.float32),
            spans=np.array([place for place, _ in spans]),
            labels=np.stack([labels for labels, _ in told]),
            known=np.array([known for _, known in told], np.float32),
        )

    def draw_scene(self, window: int, rng: np.random.Generator) -> Scene:
        """Draw one scene, the `window`-th of its batch."""
        relation = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        at_once, picks = "at once" in relation, self.draw_recordings(COUNTS.get(relation, 3), rng)
        longest = self.samples if rng.random() < 0.5 else int(self.samples * rng.uniform(0.04, 1))
        longest = min(max(longest, SHORTEST_SCENE), self.samples)
        heard = self.place(window, picks, at_once, longest, rng)
        pause = int(rng.uniform(0, 1.5) * RATE) if rng.random() < 0.3 else 0
        length = min(longest, max(max(one.event.end for one in heard) + pause, RATE))
        return Scene(
            heard, length, peak=from_decibels(rng.uniform(-32, -1)), floor=from_decibels(rng.uniform(-100, -62))
        )

    def draw_recordings(self, count: int, rng: np.random.Generator) -> list[Recording]:
        """Draw recordings, each of another kind; silence and noise are heard alone."""
        picks = [self.draw_one(rng)]
        while len(picks) < count and picks[0].kind not in PLAIN:
            others = (self.draw_one(rng) for _ in range(MOST_DRAWS))
            kinds = {one.kind for one in picks if one.kind}
            other = next((one for one in others if one.kind not in kinds and one.kind not in PLAIN), None)
            if other is None:
                break
            picks.append(other)
        return picks

    def draw_one(self, rng: np.random.Generator) -> Recording:
        """Draw a recording by its weight."""
        return self.recordings[min(int(np.searchsorted(self.cumulated, rng.random())), len(self.recordings) - 1)]

    def place(
        self, window: int, picks: Sequence[Recording], at_once: bool, longest: int, rng: np.random.Generator
    ) -> list[Heard]:
        """Give each recording its place in a scene: one after another, or others somewhere over the first."""
        share = longest // (1 if at_once else len(picks))
        first = min(int(rng.uniform(0, 1.5) * RATE), longest // 3) if rng.random() < 0.25 else 0
        heard: list[Heard] = []
        for number, recording in enumerate(picks):
            event, sure = vary(recording, share, rng)
            start, decibels = first, 0.0
            if at_once and number:
                start = int(rng.random() * max(longest - event.length, 1)) if rng.random() < 0.7 else first
                decibels = -rng.uniform(0, 12) if rng.random() < 0.75 else -rng.uniform(12, 22)
            elif number:
                decibels = rng.uniform(-8, 8)
            if start >= longest - RATE // 20:
                continue
            length = min(event.length, longest - start)
            event = event._replace(window=window, start=start, length=length, gain=from_decibels(decibels))
            heard.append(Heard(event, decibels, recording.tags if sure else None))
            if not at_once:
                first = event.end + (int(rng.uniform(0, 0.6) * RATE) if rng.random() < 0.5 else 0)
        return heard


def vary(recording: Recording, share: int, rng: np.random.Generator) -> tuple[Event, bool]:
    """
    Draw how a recording is heard, in at most `share` samples of a scene.

    Returns:
        An event without a place, and whether it is still surely of its kind: what is far too fast or slow, or
        backwards, may be taken for something else, so that nothing is told of it.
    """
    speed, sure = draw_speed(recording, rng)
    backwards = rng.random() < 0.08
    length = int(min(recording.length / speed, share))
    if length > RATE and rng.random() < 0.4:
        length = int(length * rng.uniform(0.4, 1))
    used = min(int(length * speed) + 1, recording.length)
    base = recording.first + int(rng.random() * (recording.length - used + 1))
    period = used
    if length < 3 * RATE and rng.random() < 0.5:  # short sounds are repeated at times
        period += int(rng.uniform(0.05, 0.8) * RATE * speed)
        length = int(min(period * (1 + int(rng.random() * 4)) / speed, share))
    silent = recording.kind == "silence"
    echo = rng.uniform(0.1, 1) if rng.random() < 0.25 and not silent else 0.0
    event = Event(
        0, base, used, period, speed, backwards, 0, length, 1.0, echo, rng.uniform(0.1, 1), silent, draw_curve(rng)
    )
    return event, sure and not backwards


def draw_speed(recording: Recording, rng: np.random.Generator) -> tuple[float, bool]:
    """Draw a speed, and whether what is so fast may still be called by its name."""
    if rng.random() < 0.2:  # up to 2.3 times as fast or slow
        return 2 ** rng.uniform(-1.2, 1.2), False
    if rng.random() < 0.4 or (recording.voice and rng.random() < 0.5):
        return 1.0, True
    reach = 0.06 if recording.voice else 0.3
    return 2 ** rng.uniform(-reach, reach), True


def draw_curve(rng: np.random.Generator) -> np.ndarray:
    """Draw the gain in decibels of a filter at ten frequencies, (10,): none, bumps and a tilt, a low pass."""
    places, curve = np.arange(BANDS), np.zeros(BANDS)
    if rng.random() < 0.6:
        curve += rng.standard_normal(BANDS) * rng.uniform(2, 6) + np.linspace(-1, 1, BANDS) * rng.uniform(-8, 8)
    if rng.random() < 0.15:
        curve -= 60 / (1 + np.exp(-4 * (places - rng.uniform(6.5, 9))))
    return curve.astype(np.float32)


def nothing() -> Event:
    """Make an event that adds nothing to the first scene."""
    curve = np.zeros(BANDS, np.float32)
    return Event(0, 0, SHORTEST, SHORTEST, 1.0, False, 0, SHORTEST, 0.0, 0.0, 0.0, False, curve)


def from_decibels(decibels: float) -> float:
    """Give the factor of a level in decibels."""
    return 10 ** (decibels / 20)


def cut_up(scene: Scene, window: int) -> list[tuple[tuple[int, int, int], list[Heard]]]:
    """Cut a scene into (its number, first row, end row), with what is heard there, wherever that changes."""
    places = {min(place, scene.length) for one in scene.heard for place in (one.event.start, one.event.end)}
    spans = []
    for first, end in pairwise(sorted({0, scene.length, *places})):
        inside = [one for one in scene.heard if one.event.start < end and one.event.end > first]
        if inside and end - first >= SHORTEST_SPAN:
            rows = -(-scene.length // PATCH)
            row = min(round(first / PATCH), rows - 1)
            spans.append(((window, row, min(max(round(end / PATCH), row + 1), rows)), inside))
    return spans


def told_of(heard: Sequence[Heard], tags: int) -> tuple[np.ndarray, bool]:
    """Collect the tags of a span, (tags,) of 0 and 1, and whether these are known to be all that there are."""
    labels = np.zeros(tags, np.float32)
    for one in heard:
        if one.tags is not None and one.decibels > FAINTEST:
            labels[list(one.tags)] = 1
    return labels, all(one.tags is not None for one in heard)

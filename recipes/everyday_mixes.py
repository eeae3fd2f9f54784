"""
Mixes everyday sounds: speech over a sound or music, conversations, crowds, two sounds, applause of several people.

A part has its place in the table where it is known: the second at which it starts in the mix (below 0: what is before
the mix is cut off), and what it is multiplied by; `cut` is then the length of the mix in seconds. Where it is not, the
mix is made anew by the rule for its kind, from a random generator that is seeded by the mix's name.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np
import soxr
from everyday_sources import LONGEST, RATE, cut
from everyday_table import Row


LEVEL = 0.06  # root mean square of a mix that is made anew
PEAK = 0.98
Wave = np.ndarray  # (samples,) at 16 kHz


def seeded(row: Row) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(row.stem.encode()))


def make_mix(row: Row, waves: Sequence[Wave]) -> Wave:
    """
    Mix the parts of a row.

    Args:
        row: A row of `mixes` or `applause`.
        waves: Its parts, each (samples,).

    Returns:
        (samples,), at most 10 s.
    """
    places = [part.place for part in row.parts if part.place]
    if len(places) == len(row.parts):
        return lay(places, waves, float(row.cut))
    rng = seeded(row)
    if row.source == "applause":
        mix = applaud(waves, rng)
    elif row.manifest["kind"] == "conversation":
        mix = talk_in_turn(waves, rng)
    elif row.manifest["kind"] == "crowd":
        mix = talk_at_once(waves, rng)
    elif row.manifest["kind"] == "two sounds":
        mix = two_sounds(waves, row.manifest["caption_hints"].startswith("both"), rng)
    else:
        mix = speak_over(waves, read_decibels(row))
    return level(mix[:LONGEST])


def lay(places: Sequence[tuple[float, float]], waves: Sequence[Wave], seconds: float) -> Wave:
    """Add waves, each from a second on and with a gain, to a mix of so many seconds."""
    mix = np.zeros(round(seconds * RATE), np.float32)
    for (start, gain), wave in zip(places, waves, strict=True):
        add(mix, wave * gain, round(start * RATE))
    return mix


def add(mix: Wave, wave: Wave, start: int) -> None:
    """Add what of a wave is within a mix, if it starts at this sample."""
    wave, start = wave[max(0, -start) :], max(0, start)
    wave = wave[: max(0, len(mix) - start)]
    mix[start : start + len(wave)] += wave


def strength(wave: Wave) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) + 1e-6


def level(mix: Wave) -> Wave:
    mix = mix * (LEVEL / strength(mix))
    return (mix * min(1, PEAK / (np.abs(mix).max(initial=0) + 1e-9))).astype(np.float32)


def read_decibels(row: Row) -> float:
    """Read how much louder speech is than what is behind it."""
    told = re.search(r"at about (-?\d+) dB", row.manifest["caption_hints"])
    if told is None:
        raise ValueError(f"{row.stem}: its hints do not say how loud the speech is; expected `at about N dB`.")
    return float(told[1])


def speak_over(waves: Sequence[Wave], decibels: float) -> Wave:
    """Lay speech over a sound, which is repeated until the speech ends."""
    speech, behind = waves[0], np.resize(waves[1], len(waves[0]))
    return speech / strength(speech) + behind / strength(behind) * 10 ** (-decibels / 20)


def talk_in_turn(waves: Sequence[Wave], rng: np.random.Generator) -> Wave:
    """Let speakers take turns, with pauses of 0.2 to 0.6 s."""
    turns = [np.concatenate([wave / strength(wave), np.zeros(int(rng.uniform(0.2, 0.6) * RATE))]) for wave in waves]
    return np.concatenate(turns)


def talk_at_once(waves: Sequence[Wave], rng: np.random.Generator) -> Wave:
    """Let people talk at the same time, each again and again from somewhere on, for 4 to 9 s."""
    mix = np.zeros(int(rng.uniform(4, 9) * RATE), np.float32)
    for wave in waves:
        mix += np.resize(np.roll(wave / strength(wave), rng.integers(len(wave))), len(mix)) * rng.uniform(0.6, 1.2)
    return mix


def two_sounds(waves: Sequence[Wave], at_once: bool, rng: np.random.Generator) -> Wave:
    """Lay two sounds, of 5 s at most, over one another, or one after the other with a pause of half a second."""
    first, second = (cut(wave[: 5 * RATE]) / strength(wave[: 5 * RATE]) * rng.uniform(0.7, 1.3) for wave in waves)
    start = 0 if at_once else len(first) + RATE // 2
    mix = np.zeros(max(len(first), start + len(second)), np.float32)
    add(mix, first, 0)
    add(mix, second, start)
    return mix


def applaud(waves: Sequence[Wave], rng: np.random.Generator) -> Wave:
    """Let several people clap, each a little faster or slower and from somewhere on, for 4 to 9.5 s."""
    mix = np.zeros(int(rng.uniform(4, 9.5) * RATE), np.float32)
    for wave in waves:
        clapping = soxr.resample(wave, RATE, RATE * rng.uniform(0.85, 1.15))
        clapping = np.roll(np.resize(clapping, len(mix)), rng.integers(len(mix)))
        mix += clapping / strength(clapping) * rng.uniform(0.6, 1.2)
    return mix

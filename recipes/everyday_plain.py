"""
Tones and noises that nobody has recorded, each with one that an encoder knows and that it is to hear alike.

An encoder that has learnt dial tones, of which Europe's is one sine of 425 Hz, takes any tone near it for a telephone;
and one that has learnt to hear through noise, and of noise alone mostly that it is white, takes much of the rest for
silence.
"""

import numpy as np
from everyday_bank import RATE
from everyday_damage import Random, Wave, coloured_noise, level_of
from everyday_planning import from_decibels


KNOWN_TONES = (550, 1500)  # Hz, above dial tones
TONES = (80, 6000)  # Hz
DIAL_TONES = (380, 480)  # Hz, of half of the tones
KNOWN_LEVELS = (-15, -26)  # root mean squares in decibels, of tones and of noises
LEVELS = (-40, -5)  # of the others, before peaks are cut off; hiss that is quieter is silence to most


def plain_pair(samples: int, rng: Random) -> tuple[Wave, Wave]:
    """
    Make a tone or a noise.

    Args:
        samples: Its length.
        rng: Source of all chance.

    Returns:
        One that is known and one that is to be heard like it, (samples,) each, at 16 kHz and in [-1, 1].
    """
    known, other = (tones, noises)[rng.integers(2)](samples, rng)
    return known.astype(np.float32), np.clip(other, -1, 1).astype(np.float32)


def tones(samples: int, rng: Random) -> tuple[Wave, Wave]:
    """`plain_pair` of two sines, of which the other may have any frequency."""
    hertz = rng.uniform(*DIAL_TONES) if rng.random() < 0.5 else np.exp(rng.uniform(*np.log(TONES)))
    time = np.arange(samples) / RATE
    known, other = (np.sin(2 * np.pi * one * time) for one in (rng.uniform(*KNOWN_TONES), hertz))
    return with_level(known, KNOWN_LEVELS[0]), with_level(other, rng.uniform(*LEVELS))


def noises(samples: int, rng: Random) -> tuple[Wave, Wave]:
    """`plain_pair` of white noise, and of one from white to brown."""
    known, other = (coloured_noise(samples, slope, rng) for slope in (0.0, rng.uniform(0, 1)))
    return with_level(known, KNOWN_LEVELS[1]), with_level(other, rng.uniform(*LEVELS))


def with_level(wave: Wave, decibels: float) -> Wave:
    """Set the root mean square."""
    return wave * (from_decibels(decibels) / level_of(wave))

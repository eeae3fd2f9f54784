"""
What happens to a sound between its source and a file: rooms, noise, microphones, levels, telephones, codecs.

A recording that was damaged so is still of the same sounds at the same times, so what is heard in it may be asked for
as before.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
import soxr
from everyday_bank import RATE
from everyday_planning import from_decibels
from everyday_rendering import fast_size


Random = np.random.Generator
Wave = np.ndarray
QUIET = 1e-5  # root mean square below which nothing is done to a sound: it is silence
RINGING = RATE // 2  # samples after a sound, so that a filter that rings does not ring at its start
SLOW_RATES = (6_000, 8_000, 8_000, 8_000, 11_025, 12_000)  # Hz, that of telephones most often
TELEPHONE = 8_000  # Hz
# Name of the format, of its coding, and the least and greatest of libsndfile's `compression_level`, where 1 is worst.
CODECS = (("MP3", None, 0.0, 0.97), ("OGG", "VORBIS", 0.2, 0.99), ("OGG", "OPUS", 0.5, 0.99))
CODEC_SHARES = (0.7, 0.2, 0.1)  # Opus is the slowest by far
MP3_DELAY = 1105  # samples
TELEPHONE_CODECS = ("GSM610", "ULAW", "ALAW")


def check_codecs() -> None:
    """
    Refuse to begin without the codecs that recordings are sent through.

    Raises:
        ValueError: This machine's libsndfile lacks one of them.
    """
    needed = [(kind, coding) for kind, coding, _, _ in CODECS] + [("WAV", coding) for coding in TELEPHONE_CODECS]
    for kind, coding in needed:
        try:
            encoded(np.zeros(TELEPHONE), TELEPHONE, kind, coding)
        except soundfile.SoundFileError as error:  # too old, or built without it
            name, version = " ".join(filter(None, (kind, coding))), soundfile.__libsndfile_version__
            raise ValueError(f"libsndfile {version} knows no {name} here ({error})") from error


def damage(wave: Wave, rng: Random) -> Wave:
    """
    Damage a recording in none, one or some of these ways.

    Args:
        wave: Samples at 16 kHz, (samples,) float32 in [-1, 1].
        rng: Source of all chance.

    Returns:
        (samples,) float32 in [-1, 1]; what a way has made louder than that is cut off.
    """
    ways = [way for share, way in WAYS if rng.random() < share]
    for way in ways:
        if level_of(wave) < QUIET:  # or a filter has left nothing of it, that nothing must be made of
            break
        wave = way(wave, rng)
    return np.clip(wave, -1, 1).astype(np.float32)


def level_of(wave: Wave) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def filtered(wave: Wave, gain: Callable[[Wave], Wave]) -> Wave:
    """Filter a sound, (samples,), by the gain of each frequency in Hz."""
    size = fast_size(len(wave) + RINGING)
    spectrum = np.fft.rfft(wave, size)
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(size, 1 / RATE)), size)[: len(wave)]


def in_room(wave: Wave, rng: Random) -> Wave:
    """Put a sound into a random room."""
    return echoed(wave, rng, rng.uniform(0.1, 1.0), rng.uniform(0.2, 3))


def echoed(wave: Wave, rng: Random, seconds: float, loudness: float) -> Wave:
    """Put a sound into a room, whose echo is noise that falls by 60 dB in so many seconds, and so loud beside it."""
    length = int(RATE * seconds)
    echo = rng.standard_normal(length) * 1000.0 ** -(np.arange(length) / length)
    echo[: int(RATE * rng.uniform(0.001, 0.01))] = 0
    echo *= loudness / (np.linalg.norm(echo) + QUIET)
    size = fast_size(len(wave) + length)
    tail = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(echo, size), size)[: len(wave)]
    return (wave + tail) * (level_of(wave) / level_of(wave + tail))


def in_noise(wave: Wave, rng: Random) -> Wave:
    """Add noise, white to brown, or the hum of the mains, 5 to 40 dB below the sound."""
    if rng.random() < 0.15:
        time = np.arange(len(wave)) / RATE
        pitch = rng.choice([50, 60])
        added = sum(rng.random() * np.sin(2 * np.pi * pitch * order * time) for order in range(1, 7))
    else:
        added = coloured_noise(len(wave), rng.uniform(0, 1), rng)
    return with_noise(wave, added, rng.uniform(5, 40))


def coloured_noise(samples: int, slope: float, rng: Random) -> Wave:
    """Make noise, (samples,), from white, of slope 0, by pink, 0.5, to brown, 1: so steeply its amplitudes fall."""
    return filtered(rng.standard_normal(samples), lambda hertz: np.maximum(hertz, 30.0) ** -slope)


def with_noise(wave: Wave, noise: Wave, below: float) -> Wave:
    """Add noise so many decibels below the sound."""
    return wave + noise * (level_of(wave) / level_of(noise) * from_decibels(-below))


def by_microphone(wave: Wave, rng: Random) -> Wave:
    """Take the lows or the highs away, softly as a microphone or steeply as an encoder, and bend the rest."""
    low = 10 ** rng.uniform(1.5, 2.7) if rng.random() < 0.6 else 0.0
    high = 10 ** rng.uniform(3.2, 3.9) if rng.random() < 0.6 else RATE
    order = rng.choice([2, 4, 12, 60])
    places = np.geomspace(50, RATE / 2, 8)
    bent = rng.standard_normal(8) * rng.uniform(0, 5)

    def gain(hertz: Wave) -> Wave:
        hertz = np.maximum(hertz, 1.0)
        passed = (1 + (low / hertz) ** (2 * order.clip(max=4))) ** -0.5 * (1 + (hertz / high) ** (2 * order)) ** -0.5
        return passed * 10 ** (np.interp(np.log(hertz), np.log(places), bent) / 20)

    return filtered(wave, gain)


def too_loud(wave: Wave, rng: Random) -> Wave:
    """Cut the peaks off, a little or far."""
    return cut_off(wave, rng.uniform(2, 22))


def cut_off(wave: Wave, below: float) -> Wave:
    """Cut off what is above a level so many decibels below the peak, and make the rest as loud as that was."""
    loudness = from_decibels(below)
    greatest = np.abs(wave).max()
    return np.clip(wave * loudness, -greatest, greatest)


def at_level(wave: Wave, rng: Random) -> Wave:
    """Set the peak to 0 to 50 dB below the greatest."""
    return with_peak(wave, -rng.uniform(0, 50))


def with_peak(wave: Wave, decibels: float) -> Wave:
    """Set the peak, compared with the greatest, in steps of 16 bits."""
    wave = wave * (from_decibels(decibels) / np.abs(wave).max())
    return np.round(wave * 32767) / 32767


def at_rate(wave: Wave, rng: Random) -> Wave:
    """Record a sound at a lower rate."""
    return at_hertz(wave, int(rng.choice(SLOW_RATES)))


def at_hertz(wave: Wave, rate: int) -> Wave:
    """Record a sound at this rate: above half of it nothing is left."""
    return fitted(soxr.resample(soxr.resample(wave, RATE, rate), rate, RATE), len(wave))


def through_codec(wave: Wave, rng: Random) -> Wave:
    """Encode and decode a sound at a random quality, or as a telephone does."""
    wave = wave / max(1.0, np.abs(wave).max())
    if rng.random() < 0.2:
        return by_telephone(wave, str(rng.choice(TELEPHONE_CODECS)))
    kind, coding, best, worst = CODECS[rng.choice(len(CODECS), p=CODEC_SHARES)]
    return coded(wave, kind, coding, rng.uniform(best, worst))


def by_telephone(wave: Wave, coding: str) -> Wave:
    """Encode and decode a sound of 8 kHz."""
    # What the resampling makes greater than 1 would come back with the other sign.
    told = encoded(np.clip(soxr.resample(wave, RATE, TELEPHONE), -1, 1), TELEPHONE, "WAV", coding)
    return fitted(soxr.resample(told, TELEPHONE, RATE), len(wave))


def coded(wave: Wave, kind: str, coding: str | None, level: float) -> Wave:
    """Encode and decode a sound at one of libsndfile's levels of compression, 0 to 1."""
    more = {"bitrate_mode": "CONSTANT"} if kind == "MP3" else {}
    told = encoded(wave, RATE, kind, coding, compression_level=level, **more)
    late = MP3_DELAY if kind == "MP3" and len(told) > len(wave) else 0  # LAME does not note it at its lowest rates
    return fitted(told[late:], len(wave))


def encoded(wave: Wave, rate: int, kind: str, coding: str | None, **options: Any) -> Wave:
    """Write a sound as a file in memory and read it again."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, subtype=coding, **options)
    file.seek(0)
    return soundfile.read(file, dtype="float64")[0]


def fitted(wave: Wave, length: int) -> Wave:
    """Cut a sound to so many samples, or let silence follow it."""
    return np.pad(wave[:length], (0, max(0, length - len(wave))))


WAYS: tuple[tuple[float, Callable[[Wave, Random], Wave]], ...] = (
    (0.2, in_room), (0.25, in_noise), (0.3, by_microphone), (0.1, too_loud), (0.35, at_level), (0.25, at_rate),
    (0.45, through_codec),
)  # fmt: skip

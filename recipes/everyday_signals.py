"""Signals among the everyday sounds: telephones, sirens, alarms, tones, hum, noise, silence, from random numbers."""

import re
from collections.abc import Callable

import numpy as np
from everyday_mixes import Wave, seeded
from everyday_sources import RATE
from everyday_table import Row


TOUCH_TONES = {"1": (697, 1209), "2": (697, 1336), "3": (697, 1477), "4": (770, 1209), "5": (770, 1336),
               "6": (770, 1477), "7": (852, 1209), "8": (852, 1336), "9": (852, 1477), "0": (941, 1336)}  # fmt: skip
DIAL_TONES = ((350, 440), (425,), (400, 425))  # Hz: North America, Europe, other countries
Random = np.random.Generator


def make_signal(row: Row) -> Wave:
    """Make the signal that a row names, (samples,) at 16 kHz, 1 to 10 s."""
    rng = seeded(row)
    told = row.manifest["title"]
    pitch = re.fullmatch(r"pure steady tone at (\d+) Hz", told)
    if pitch:
        return float32(tone(clock(rng, 2, 6), float(pitch[1])), 10 ** rng.uniform(-0.7, -0.3))
    if told == "touch tones dialled":
        wave = dial(rng, int(row.extra.removeprefix("; count=")))
    elif told in SIGNALS:
        wave = SIGNALS[told](rng)
    else:
        raise ValueError(f"{row.stem}: no signal is called {told!r}.")
    if "traffic-like" in row.extra:
        wave = wave + 0.5 * coloured(rng, len(wave), 1.5)
    return float32(wave, 1.0 if told in QUIET else 10 ** rng.uniform(-1, -0.2))


def float32(wave: Wave, gain: float) -> Wave:
    return np.clip(wave * gain, -1, 1).astype(np.float32)


def clock(rng: Random, least: float, most: float) -> Wave:
    """Give the times of the samples of a signal of random length, in seconds."""
    return np.arange(int(rng.uniform(least, most) * RATE)) / RATE


def tone(time: Wave, *pitches: float) -> Wave:
    return np.mean([np.sin(2 * np.pi * pitch * time) for pitch in pitches], axis=0)


def sweep(pitch: Wave) -> Wave:
    """Make a tone whose pitch, in Hz, changes with each sample, with three overtones."""
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return np.sum([np.sin(order * phase) / order**1.5 for order in range(1, 5)], axis=0) / 2


def during(time: Wave, period: float, *spans: tuple[float, float]) -> Wave:
    """Tell by 1 and 0 which samples are within spans of each period, with slopes of 4 ms."""
    within = time % period
    gate = np.any([(within >= start) & (within < end) for start, end in spans], axis=0)
    return np.convolve(gate.astype(float), np.full(64, 1 / 64), "same")


def coloured(rng: Random, length: int, slope: float) -> Wave:
    """Make noise whose power falls by 3 dB an octave times the slope: 0 is white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum /= np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20) ** (slope / 2)
    noise = np.fft.irfft(spectrum, length)
    return 0.25 * noise / noise.std()


def dial(rng: Random, count: int) -> Wave:
    """Dial random digits: two tones of 0.12 to 0.2 s for each, and pauses of half as long."""
    length = rng.uniform(0.12, 0.2)
    time = np.arange(int(length * RATE)) / RATE
    parts = [np.zeros(RATE // 10)]
    for digit in rng.integers(10, size=count):
        parts += [tone(time, *TOUCH_TONES[str(digit)]), np.zeros(int(length / 2 * RATE))]
    wave = np.concatenate(parts)
    return np.pad(wave, (0, max(0, round(1.1 * RATE) - len(wave))))


def busy(rng: Random) -> Wave:
    time, beat = clock(rng, 3.3, 7), rng.choice([0.48, 0.5, 0.375])
    return tone(time, *((480, 620) if rng.random() < 0.5 else (425,))) * during(time, 2 * beat, (0, beat))


def ring(rng: Random) -> Wave:
    time, pitch = clock(rng, 4, 8.5), rng.uniform(700, 1400)
    warble = sweep(pitch * (1 + 0.25 * (np.sin(2 * np.pi * rng.uniform(14, 22) * time) > 0)))
    return warble * during(time, 3, (0, 1.2))


def bell(rng: Random) -> Wave:
    """Let a clapper strike two gongs in turn, some 20 times a second."""
    time, blows = clock(rng, 4, 8.5), rng.uniform(18, 24)
    wave = np.zeros(len(time))
    for gong in range(2):
        since = (time + gong / blows) % (2 / blows)
        for partial, loudness in ((1, 1.0), (2.76, 0.6), (5.4, 0.3)):
            pitch = (1000 + 180 * gong) * partial
            wave += loudness * np.sin(2 * np.pi * pitch * time) * np.exp(-since * 25)
    return 0.3 * wave * during(time, 3, (0, 1.8))


def siren(rng: Random, period: float, low: float, high: float, least: float, most: float) -> Wave:
    time = clock(rng, least, most)
    return sweep(low + (high - low) * (0.5 - 0.5 * np.cos(2 * np.pi * time / period)))


def hi_lo(rng: Random) -> Wave:
    time, pitch = clock(rng, 4.5, 9), rng.uniform(400, 500)
    return sweep(np.where(time % 1.4 < 0.7, pitch, pitch * 1.33))


def civil_defence(rng: Random) -> Wave:
    time, pitch = clock(rng, 4, 9), rng.uniform(400, 520)
    return sweep(pitch * (1 - 0.7 * np.exp(-time / 1.2)))


def beeps(rng: Random, pitch: float, period: float, *spans: tuple[float, float]) -> Wave:
    time = clock(rng, 3.1, 8.6)
    return tone(time, pitch) * during(time, period, *spans)


def hum(rng: Random, mains: float) -> Wave:
    time = clock(rng, 3.2, 9)
    overtones = [rng.uniform(0.2, 1) / order * np.sin(2 * np.pi * mains * order * time) for order in range(1, 9)]
    return np.sum(overtones, axis=0) / 2


def buzz(rng: Random) -> Wave:
    time = clock(rng, 4, 9)
    return 0.5 * np.sign(np.sin(2 * np.pi * rng.uniform(90, 220) * time)) * during(time, 2, (0, rng.uniform(0.8, 2)))


def crackle(rng: Random) -> Wave:
    time = clock(rng, 2.4, 8)
    clicks = (rng.random(len(time)) < rng.uniform(10, 60) / RATE) * rng.standard_normal(len(time))
    return 0.3 * np.convolve(clicks, np.exp(-np.arange(64) / 8), "same") + 0.01 * coloured(rng, len(time), 0)


def noise(rng: Random, slope: float) -> Wave:
    return coloured(rng, len(clock(rng, 2.1, 9.3)), slope)


def faint(rng: Random, decibels: float) -> Wave:
    """Make the noise of a quiet room, at so many dB of full scale."""
    return 4 * noise(rng, 1.5) * 10 ** (decibels / 20)


SIGNALS: dict[str, Callable[[Random], Wave]] = {
    "steady dial tone": lambda rng: tone(clock(rng, 2.4, 5.6), *DIAL_TONES[rng.integers(3)]),
    "telephone busy signal, beeps at a steady rate": busy,
    "electronic telephone ringing": ring,
    "bell-like telephone ringing": bell,
    "wailing siren, slowly rising and falling": lambda rng: siren(rng, rng.uniform(3, 5), 500, 1400, 6.3, 8.7),
    "yelping siren, fast rising and falling": lambda rng: siren(rng, rng.uniform(0.25, 0.4), 600, 1400, 4.3, 9.4),
    "two-tone hi-lo siren": hi_lo,
    "civil defence siren rising to a steady pitch": civil_defence,
    "smoke alarm, groups of three beeps": lambda rng: beeps(
        rng, rng.uniform(2900, 3300), 4, (0.1, 0.6), (1.1, 1.6), (2.1, 2.6)
    ),
    "digital alarm clock, four quick beeps a second": lambda rng: beeps(
        rng, rng.uniform(1900, 2200), 1, (0, 0.06), (0.12, 0.18), (0.24, 0.3), (0.36, 0.42)
    ),
    "reversing beeps of a truck, steady": lambda rng: beeps(rng, rng.uniform(1000, 1400), 1, (0, 0.5)),
    "short electronic beep": lambda rng: beeps(rng, rng.uniform(800, 2500), 20, (0.3, rng.uniform(0.4, 0.7))),
    "buzzer": buzz,
    "tone sweeping upwards": lambda rng: sweep(np.geomspace(150, 3500, len(clock(rng, 3.2, 6)))),
    "white noise": lambda rng: noise(rng, 0),
    "pink noise": lambda rng: noise(rng, 1),
    "low rumbling noise": lambda rng: noise(rng, 2.5),
    "50 Hz mains hum": lambda rng: hum(rng, 50),
    "60 Hz mains hum": lambda rng: hum(rng, 60),
    "crackling static": crackle,
    "digital silence": lambda rng: 0 * clock(rng, 2.3, 8.3),
    "near silence with faint room noise": lambda rng: faint(rng, rng.uniform(-74, -72)),
    "quiet room tone": lambda rng: faint(rng, rng.uniform(-63.6, -62)),
}
QUIET = ("digital silence", "near silence with faint room noise", "quiet room tone")

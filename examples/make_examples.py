"""Makes the example sounds from physics and a fixed seed: nothing here was recorded.

    python examples/make_examples.py [--output DIR]

Each sound is one short function; its docstring says what makes the sound in nature. All are mono, 16 kHz, peak at
-3 dBFS, and together stay under 1 MB. The church bells are longer than one 10.24 s window on purpose.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile


RATE = 16_000
PEAK = 10 ** (-3 / 20)
SPEED_OF_SOUND = 343.0

Signal = np.ndarray
Values = Sequence[float] | np.ndarray


def seconds(duration: float) -> Signal:
    """The time axis of a sound, in seconds."""
    return np.arange(round(duration * RATE)) / RATE


def add(target: Signal, start: float, piece: Signal) -> None:
    """Mix `piece` into `target` from `start` seconds on; what sticks out at the end is cut."""
    first = round(start * RATE)
    piece = piece[: max(0, len(target) - first)]
    target[first : first + len(piece)] += piece


def shaped_noise(rng: np.random.Generator, length: int, gain: Callable[[Signal], Signal]) -> Signal:
    """Gaussian noise with unit power whose amplitude spectrum follows `gain(frequency)`."""
    spectrum = np.fft.rfft(rng.standard_normal(length)) * gain(np.fft.rfftfreq(length, 1 / RATE))
    noise = np.fft.irfft(spectrum, length)
    return noise / np.sqrt(np.mean(noise**2) + 1e-12)


def band(low: float, high: float, slope: float = 2.0) -> Callable[[Signal], Signal]:
    """A smooth band-pass gain: rises up to `low` Hz, flat, falls from `high` Hz."""
    return lambda f: 1 / (1 + (low / np.maximum(f, 1.0)) ** slope) / (1 + (f / high) ** slope)


def convolve(signal: Signal, response: Signal) -> Signal:
    """Linear convolution by FFT, cut to the length of `signal`."""
    size = 1 << (len(signal) + len(response) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(response, size), size)[: len(signal)]


def ringing(length: float, frequencies: Values, decays: Values, levels: Values) -> Signal:
    """A struck body: damped sine modes that start together; each decay is the time to fall to 1/e."""
    time = seconds(length)
    modes = zip(frequencies, decays, levels, strict=True)
    return sum((a * np.exp(-time / d) * np.sin(2 * np.pi * f * time) for f, d, a in modes), np.zeros_like(time))


def resonances(pairs: Sequence[tuple[float, float, float]], length: float = 0.06) -> Signal:
    """Impulse response of a tract, pipe or horn: (frequency, bandwidth, level) of each resonance."""
    frequencies, widths, levels = zip(*pairs, strict=True)
    return ringing(length, frequencies, [1 / (np.pi * width) for width in widths], levels)


def in_room(rng: np.random.Generator, dry: Signal, reverberation: float, wetness: float) -> Signal:
    """The sound in a room: diffuse reflections that fall by 60 dB in `reverberation` seconds."""
    time = seconds(1.2 * reverberation)
    tail = shaped_noise(rng, len(time), band(120, 3500)) * 10 ** (-3 * time / reverberation)
    tail[: round(0.008 * RATE)] = 0  # the nearest wall is more than a metre away
    wet = convolve(dry, tail)
    return dry + wetness * wet * np.max(np.abs(dry)) / (np.max(np.abs(wet)) + 1e-12)


def rain(rng: np.random.Generator) -> Signal:
    """Rain: thousands of drops at Poisson times over the hiss of those too far to tell apart.

    Each near drop is an impact (a noise burst of a few ms) and an air bubble that rings after it, smaller and higher
    for small drops; drop sizes are spread widely, so that loud drops are rare.
    """
    time = seconds(8.0)
    shower = 1 + 0.15 * np.interp(time, np.linspace(0, 8, 9), rng.standard_normal(9))
    out = 0.08 * shower * shaped_noise(rng, len(time), band(350, 1700, 1.2))
    out += 0.025 * shaped_noise(rng, len(time), band(60, 300))
    for start in np.cumsum(rng.exponential(1 / 260, size=2080)):
        size = rng.lognormal(0, 0.75)
        grain = seconds(0.025)
        impact = rng.standard_normal(len(grain)) * np.exp(-grain / rng.uniform(0.0006, 0.003))
        impact = np.convolve(impact, [0.5, -0.35, -0.15])[: len(grain)]
        pitch = 4200 / size**0.6 * rng.uniform(0.8, 1.25)
        bubble = np.exp(-grain / 0.004) * np.sin(2 * np.pi * min(pitch, 7000) * grain)
        add(out, start, 0.07 * size * (impact + 0.4 * bubble))
    return out


def siren(rng: np.random.Generator) -> Signal:
    """A siren on a passing vehicle: a harmonic tone sweeps up and down through a horn.

    The listener stands 12 m from the road: pitch falls as the vehicle passes (Doppler) and the level follows the
    distance; a house front returns a dull echo.
    """
    time = seconds(9.0)
    distance = np.hypot(12.0, 13.0 * (time - 5.0))
    emitted = np.interp(time, time + distance / SPEED_OF_SOUND, time)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * emitted / 3.2)
    frequency = 620 * (1450 / 620) ** sweep**0.8
    phase = 2 * np.pi * np.cumsum(frequency * np.gradient(emitted, 1 / RATE)) / RATE
    tone = sum(np.sin(k * phase) / k**1.1 for k in range(1, 6))
    horn = resonances([(950, 500, 1.0), (2300, 900, 0.5)], 0.02)
    direct = convolve(tone, horn) * (14 / distance) ** 0.8
    direct /= np.max(np.abs(direct))
    echo = convolve(
        np.concatenate([np.zeros(round(0.23 * RATE)), direct])[: len(time)], np.exp(-seconds(0.004) / 8e-4)
    )
    street = shaped_noise(rng, len(time), band(40, 400))
    return direct + 0.25 * echo / np.max(np.abs(echo)) + 0.02 * street


def bell(rng: np.random.Generator, prime: float) -> Signal:
    """One stroke of a church bell of the given prime (Hz).

    Its partials hum, prime, tierce, quint, nominal and above are not harmonic; each is a close pair that beats,
    because no bell is perfectly round, and the low ones ring longest.
    """
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01, 4.17, 5.43, 6.8, 8.2, 9.7, 11.3])
    decays = np.array([5.5, 3.2, 2.6, 1.3, 2.0, 0.9, 0.9, 1.1, 0.9, 0.7, 0.6, 0.5, 0.4, 0.3]) * (400 / prime) ** 0.5
    levels = np.array([0.5, 0.6, 0.7, 0.25, 1.0, 0.3, 0.3, 0.7, 0.6, 0.45, 0.3, 0.22, 0.16, 0.1])
    split = ratios * (1 + rng.uniform(4e-4, 1.6e-3, len(ratios)))
    stroke = ringing(9.0, prime * np.concatenate([ratios, split]), np.tile(decays, 2), np.tile(levels, 2))
    clapper = seconds(0.02)
    add(stroke, 0.0, 1.2 * rng.standard_normal(len(clapper)) * np.exp(-clapper / 0.003))
    return stroke


def church_bells(rng: np.random.Generator) -> Signal:
    """Three church bells, each swinging at the pace of its own weight, heard across a square."""
    out = np.zeros(round(12.0 * RATE))
    for prime, first, period, level in ((311.0, 0.15, 1.62, 1.0), (392.0, 0.75, 1.49, 0.75), (466.0, 1.3, 1.37, 0.6)):
        stroke = bell(rng, prime)
        for start in np.arange(first, 10.5, period):
            add(out, start + rng.normal(0, 0.012), level * rng.uniform(0.8, 1.0) * stroke)
    square = shaped_noise(rng, len(out), band(80, 700))
    return in_room(rng, out, 1.8, 0.25) + 0.005 * np.max(np.abs(out)) * square


def clock(rng: np.random.Generator) -> Signal:
    """A pendulum clock: a tick or a tock every half second.

    At each swing the escape wheel's tooth unlocks, pushes and drops: three taps within 20 ms that ring the movement
    and the wooden case. The two pallets differ a little, hence tick and tock.
    """
    out = 0.0015 * shaped_noise(rng, round(6.0 * RATE), band(80, 1500))
    pallets = ((1.0, (410, 1180, 2350, 3900, 5600)), (0.8, (360, 980, 1950, 3300, 4900)))
    for beat, start in enumerate(np.arange(0.25, 6.0, 0.5)):
        level, modes = pallets[beat % 2]
        for delay, force in ((0.0, 0.3), (0.009, 1.0), (0.017, 0.45)):
            tap = ringing(0.15, modes, (0.016, 0.009, 0.006, 0.004, 0.0025), (0.5, 0.7, 1.0, 0.8, 0.5))
            tap[:48] += 0.5 * rng.standard_normal(48) * np.exp(-np.arange(48) / 12)
            add(out, start + delay + rng.normal(0, 3e-4), level * force * rng.uniform(0.93, 1.0) * tap)
    return in_room(rng, out, 0.35, 0.12)


def engine(rng: np.random.Generator) -> Signal:
    """A four-cylinder, four-stroke engine that idles, is revved once, and idles again.

    Two firings a turn; no two cylinders or cycles are alike. Each firing sends a pressure pulse through the exhaust,
    whose pipe resonates, and a knock through the block, whose hiss of intake and valves swells with it.
    """
    time = seconds(8.0)
    speed = np.interp(time, [0, 3.0, 4.0, 4.5, 6.2, 8], [820, 820, 2600, 2600, 840, 820])
    smooth = np.hanning(4001)
    speed = np.convolve(np.pad(speed, 2000, "edge"), smooth / smooth.sum(), "valid")
    firings = np.cumsum(speed / 60 * 2) / RATE
    pulses = np.zeros(len(time))
    cylinders = (1.0, 0.82, 0.93, 0.75)
    for count in range(1, int(firings[-1])):
        at = int(np.searchsorted(firings, count + rng.normal(0, 0.03)))
        pulses[min(at, len(time) - 1)] += cylinders[count % 4] * rng.uniform(0.75, 1.15)
    load = np.sqrt(speed / 820)
    pipe = resonances([(62, 30, 1.0), (118, 40, 1.0), (205, 60, 0.7), (330, 90, 0.5), (560, 150, 0.35)], 0.12)
    block = resonances([(850, 200, 0.7), (1400, 350, 0.6), (2300, 500, 0.45), (3300, 700, 0.25)], 0.03)
    exhaust = convolve(pulses, pipe)
    knock = convolve(pulses * rng.uniform(0.5, 1.0, len(time)), block)
    puff = convolve(pulses, np.exp(-seconds(0.08) / 0.018))
    hiss = shaped_noise(rng, len(time), band(500, 3000)) * (0.1 + np.maximum(puff, 0) ** 1.5)
    return load * (exhaust + 5.0 * knock + 0.2 * hiss)


def footsteps(rng: np.random.Generator) -> Signal:
    """Someone walks over a wooden floor in hard shoes, at 1.8 steps a second.

    The heel strikes first and hard: a click of the shoe and a thump of the boards; about 90 ms later the sole rolls
    down, softer and duller. Left and right differ a little, and the room answers.
    """
    out = 0.001 * shaped_noise(rng, round(7.0 * RATE), band(60, 1200))
    for step, start in enumerate(np.arange(0.3, 6.7, 1 / 1.8)):
        start += rng.normal(0, 0.015)
        shift = (1.0, 1.07)[step % 2] * rng.uniform(0.96, 1.04)
        boards = shift * np.array([95.0, 170.0, 290.0, 520.0, 980.0, 1750.0])
        for delay, force, sharpness in ((0.0, 1.0, 0.004), (rng.uniform(0.08, 0.1), 0.4, 0.009)):
            thump = ringing(0.3, boards, (0.05, 0.04, 0.025, 0.014, 0.008, 0.005), (0.7, 1.0, 0.8, 0.6, 0.5, 0.4))
            contact = seconds(0.05)
            scrape = shaped_noise(rng, len(contact), band(900, 3500)) * np.exp(-contact / sharpness)
            add(thump, 0.0, (0.9 if delay == 0 else 0.45) * scrape)
            add(out, start + delay, force * rng.uniform(0.85, 1.0) * thump)
    return in_room(rng, out, 0.5, 0.2)


def dog(rng: np.random.Generator) -> Signal:
    """A dog barks: short bursts of a rough voice whose pitch jumps up and falls.

    The vocal folds give pulses, irregular and mixed with breath; the opening and closing mouth moves the vocal
    tract's resonances, which is what turns a tone into a bark.
    """
    out = 0.0015 * shaped_noise(rng, round(5.5 * RATE), band(60, 1500))
    for start in (0.4, 0.85, 1.9, 2.35, 3.6, 4.05):
        time = seconds(rng.uniform(0.16, 0.2))
        x = time / time[-1]
        pitch = rng.uniform(0.95, 1.05) * np.interp(x, [0, 0.2, 0.45, 1], [330, 560, 590, 300])
        pitch *= 1 + 0.02 * np.interp(x, np.linspace(0, 1, 12), rng.standard_normal(12))
        phase = np.cumsum(pitch) / RATE
        voice = sum(np.sin(2 * np.pi * k * phase) / k**0.7 for k in range(1, 12))
        voice += 0.35 * sum(np.sin(2 * np.pi * (k - 0.5) * phase) / k**0.7 for k in range(1, 10))  # roughness
        source = voice + 0.6 * rng.standard_normal(len(time))
        opened = convolve(source, resonances([(1050, 220, 1.0), (1750, 300, 0.8), (3100, 500, 0.35)], 0.03))
        closed = convolve(source, resonances([(520, 150, 1.0), (1200, 250, 0.5), (2600, 500, 0.2)], 0.03))
        mouth = np.sin(np.pi * x**0.7) ** 2
        loudness = np.minimum(1, x / 0.08) * np.minimum(1, (1 - x) / 0.45) ** 1.5
        add(out, start, rng.uniform(0.8, 1.0) * loudness * (mouth * opened + (1 - mouth) * closed))
    return in_room(rng, out, 0.4, 0.12)


# name of the file -> what makes it, the container and the codec
EXAMPLES: dict[str, tuple[Callable[[np.random.Generator], Signal], str, str]] = {
    "rain.ogg": (rain, "OGG", "VORBIS"),
    "siren.opus": (siren, "OGG", "OPUS"),
    "church_bells.ogg": (church_bells, "OGG", "VORBIS"),
    "clock.wav": (clock, "WAV", "PCM_16"),
    "engine.opus": (engine, "OGG", "OPUS"),
    "footsteps.flac": (footsteps, "FLAC", "PCM_16"),
    "dog.flac": (dog, "FLAC", "PCM_16"),
}


def make(name: str) -> Signal:
    """The samples of one example, always the same: float64 in -1..1 with 10 ms fades and a peak at -3 dBFS."""
    samples = EXAMPLES[name][0](np.random.default_rng([2509, list(EXAMPLES).index(name)]))
    samples = samples - np.mean(samples)
    fade = np.minimum(1, np.arange(len(samples)) / (0.01 * RATE))
    samples = samples * fade * fade[::-1]
    return PEAK * samples / np.max(np.abs(samples))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write every example, each under a temporary name first."""
    parser = argparse.ArgumentParser(description="Synthesize the example sounds.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    output = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    for name, (_, container, codec) in EXAMPLES.items():
        samples = make(name)
        temporary = output / f".{name}.part"
        soundfile.write(temporary, samples.astype(np.float32), RATE, format=container, subtype=codec)
        temporary.replace(output / name)
        print(f"{output / name}: {len(samples) / RATE:.1f} s, {(output / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

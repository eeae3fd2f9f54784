"""
Voices among the everyday sounds that nobody spoke: computer voices, and whispers, children and singers made of speech.

Computer voices are those of `flite` and of `espeak-ng`; the table's column `cut` has speed and pitch of the latter,
and START+LENGTH in seconds of what is kept where it is not by the rule. A whisper is speech whose linear prediction is
driven by noise (Makhoul, 1975). A child's voice and a singer's are made by the WORLD vocoder (Morise et al., 2016;
package `pyworld`): the pitch of a voice is raised and its formants are moved up, or its pitch is made to follow a
melody, and each sound is held for longer.
"""

import subprocess
from pathlib import Path

import numpy as np
from everyday_mixes import Wave, seeded
from everyday_sources import LONGEST, RATE, cut, cut_at
from everyday_table import Row

from processing_mac.audio_mac import load_waveform


ORDER = 18  # of the linear prediction
FRAME, HOP = 512, 256  # samples, 32 ms and half of it
MELODY = (0, 2, 4, 5, 7, 9, 12)  # semitones above the voice's own pitch
VIBRATO = 5.5  # Hz
STEP = 0.005  # seconds between WORLD's frames


def speak(row: Row, folder: Path) -> Wave:
    """
    Let a computer voice say the title of a row of `tts`.

    Args:
        row: The row; its group is `espeak:VOICE` or `flite:VOICE`.
        folder: Folder for temporary files.

    Returns:
        (samples,) at 16 kHz, cut.

    Raises:
        ValueError: The program fails; the message is its own.
    """
    engine, voice = row.manifest["group"].split(":")
    sound, text = str(folder / "spoken.wav"), row.manifest["title"]
    told = row.cut.split()
    place = told.pop() if "+" in row.cut else None
    if engine == "espeak":
        speed, pitch = told or ("160", "50")
        command = ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w", sound, text]
    else:
        command = ["flite", "-voice", voice, "-t", text, "-o", sound]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{command[0]}: {done.stderr.strip()}")
    wave = load_waveform(sound)
    return cut_at(wave, place) if place else cut(wave)


def change_voice(row: Row, speech: Wave) -> Wave:
    """Make of speech, (samples,) at 16 kHz, what a row of `voice_fx` says in `synthetic`; at most 10 s."""
    return EFFECTS[row.manifest["synthetic"]](speech, seeded(row))[:LONGEST].astype(np.float32)


def whisper(speech: Wave, rng: np.random.Generator) -> Wave:
    """Keep the envelope of the spectrum of each 32 ms, and replace what drives it by noise as strong."""
    window = np.hanning(FRAME + 1)[:-1]
    padded = np.pad(speech.astype(np.float64), (HOP, FRAME))
    out = np.zeros(len(padded))
    for start in range(0, len(padded) - FRAME + 1, HOP):
        frame = padded[start : start + FRAME] * window
        coefficients, gain = predict(frame)
        envelope = gain / np.maximum(np.abs(np.fft.rfft(coefficients, FRAME)), 1e-6)
        noise = np.fft.rfft(rng.standard_normal(FRAME) * np.sqrt(window))
        high = np.clip(np.fft.rfftfreq(FRAME, 1 / RATE) / 400, 0, 1)  # no voice, so nothing of its pitch
        out[start : start + FRAME] += np.fft.irfft(noise * envelope * high) * np.sqrt(window)
    return 0.5 * out[HOP : HOP + len(speech)]


def predict(frame: np.ndarray) -> tuple[np.ndarray, float]:
    """Find the coefficients of linear prediction, (ORDER + 1,), by Levinson and Durbin's recursion, and the gain."""
    spectrum = np.abs(np.fft.rfft(frame, 2 * len(frame))) ** 2
    correlation = np.fft.irfft(spectrum)[: ORDER + 1]
    correlation[0] = correlation[0] * (1 + 1e-4) + 1e-9
    coefficients, error = np.zeros(ORDER + 1), correlation[0]
    coefficients[0] = 1
    for order in range(1, ORDER + 1):
        reflection = -(coefficients[:order] @ correlation[order:0:-1]) / error
        coefficients[1 : order + 1] += reflection * coefficients[order - 1 :: -1][:order]
        error *= 1 - reflection**2
    return coefficients, float(np.sqrt(max(error, 0) / len(frame)))


def child(speech: Wave, rng: np.random.Generator) -> Wave:
    """Raise the pitch of a woman's voice by a third to a half, and its formants by a sixth to a quarter."""
    world = import_world()
    samples = speech.astype(np.float64)
    pitch, envelope, noise = world.wav2world(samples, RATE, frame_period=1000 * STEP)
    higher, shift = rng.uniform(1.3, 1.5), rng.uniform(1.15, 1.25)
    return world.synthesize(pitch * higher, warp(envelope, shift), warp(noise, shift), RATE, 1000 * STEP)


def warp(spectra: np.ndarray, shift: float) -> np.ndarray:
    """Stretch spectra, (frames, bins), along their frequencies."""
    bins = np.arange(spectra.shape[1])
    return np.ascontiguousarray([np.interp(bins / shift, bins, spectrum) for spectrum in spectra])


def sing(speech: Wave, rng: np.random.Generator) -> Wave:
    """Hold each sound two and a half times as long, on notes of 0.4 to 0.8 s of a scale, with vibrato."""
    world = import_world()
    pitch, envelope, noise = world.wav2world(speech.astype(np.float64), RATE, frame_period=1000 * STEP)
    voiced = pitch[pitch > 0]
    own = float(np.median(voiced)) if len(voiced) else 160.0  # Hz
    slower = np.linspace(0, len(pitch) - 1, round(2.5 * len(pitch))).round().astype(int)
    notes = np.concatenate([
        np.full(int(rng.uniform(0.4, 0.8) / STEP), own * 2 ** (MELODY[rng.integers(len(MELODY))] / 12))
        for _ in range(len(slower) * 2 // 100 + 1)
    ])  # fmt: skip
    notes = np.resize(notes, len(slower))
    vibrato = 2 ** (0.4 / 12 * np.sin(2 * np.pi * VIBRATO * STEP * np.arange(len(notes))))
    melody = np.where(pitch[slower] > 0, np.convolve(notes, np.full(9, 1 / 9), "same") * vibrato, 0)
    return world.synthesize(melody, envelope[slower], noise[slower], RATE, 1000 * STEP)


def import_world():
    """Import WORLD's bindings."""
    try:
        import pyworld
    except ImportError as error:
        raise ValueError(f"children and singers need WORLD: pip install pyworld 'setuptools<81' ({error})") from error
    return pyworld


EFFECTS = {"lpc-whisper": whisper, "world-child": child, "world-singing": sing}

"""
Random compositions for one instrument or an ensemble, played by FluidSynth with a sampled soundfont of General MIDI.

A composition follows what the table says of it: the instrument or the ensemble, melody or chords, scale and tempo. Its
notes are random, from a generator that is seeded by its name.
"""

import re
import subprocess
from pathlib import Path

import numpy as np
from everyday_mixes import Wave, seeded
from everyday_table import Row

from processing_mac.audio_mac import load_waveform


PROGRAMS = {  # of General MIDI, counted from 0, and the middle of the instrument's range (60: middle C)
    "grand piano": (0, 64), "bright piano": (1, 67), "honky-tonk piano": (3, 64), "electric piano": (4, 62),
    "harpsichord": (6, 64), "glockenspiel": (9, 86), "music box": (10, 80), "vibraphone": (11, 69),
    "marimba": (12, 64), "xylophone": (13, 79), "tubular bells": (14, 67), "drawbar organ": (16, 62),
    "church pipe organ": (19, 60), "accordion": (21, 67), "harmonica": (22, 72),
    "nylon-string classical guitar": (24, 57), "steel-string acoustic guitar": (25, 57),
    "jazz electric guitar": (26, 57), "clean electric guitar": (27, 57), "distorted electric guitar": (30, 52),
    "acoustic bass, plucked": (32, 40), "electric bass": (33, 38), "violin": (40, 74), "cello": (42, 50),
    "pizzicato strings": (45, 62), "harp": (46, 65), "timpani": (47, 43), "string section": (48, 62),
    "choir singing aah": (52, 62), "voice ooh": (53, 64), "trumpet": (56, 67), "trombone": (57, 53),
    "tuba": (58, 41), "french horn": (60, 57), "brass section": (61, 60), "alto saxophone": (65, 64),
    "tenor saxophone": (66, 57), "oboe": (68, 72), "bassoon": (70, 48), "clarinet": (71, 66), "piccolo": (72, 84),
    "flute": (73, 76), "recorder": (74, 76), "square-wave synth lead": (80, 69), "saw-wave synth lead": (81, 69),
    "warm synth pad": (89, 60), "sitar": (104, 57), "banjo": (105, 64), "bagpipes": (109, 69),
    "steel drums": (114, 67),
}  # fmt: skip
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "pentatonic": (0, 2, 4, 7, 9),
}
TEMPI = {"slow": (60, 84), "medium": (90, 120), "fast": (130, 170)}  # beats a minute
PROGRESSIONS = (
    (0, 3, 4, 0),
    (0, 5, 3, 4),
    (0, 4, 5, 3),
    (1, 4, 0, 0),
)  # degrees of the scale, a bar of four beats each
ENSEMBLES = {  # tempo, and what each plays
    "pop": ((95, 125), {"chords": "grand piano", "strum": "steel-string acoustic guitar", "bass": "electric bass"}),
    "rock": ((110, 150), {"strum": "distorted electric guitar", "bass": "electric bass"}),
    "jazz": ((100, 180), {"chords": "grand piano", "bass": "acoustic bass, plucked", "melody": "tenor saxophone"}),
    "folk": ((90, 130), {"strum": "steel-string acoustic guitar", "melody": "accordion"}),
    "latin": ((95, 125), {"strum": "nylon-string classical guitar", "bass": "electric bass", "melody": "flute"}),
    "techno": ((125, 140), {"bass": "saw-wave synth lead", "chords": "warm synth pad",
                            "melody": "square-wave synth lead"}),
    "march": ((105, 120), {"melody": "trumpet", "chords": "brass section", "bass": "tuba"}),
    "orchestra": ((70, 120), {"chords": "string section", "melody": "flute", "second": "french horn",
                              "bass": "timpani"}),
    "strings4": ((60, 110), {"melody": "violin", "second": "violin", "bass": "cello"}),
    "choirorg": ((55, 80), {"chords": "church pipe organ", "melody": "choir singing aah"}),
    "ambient": ((50, 70), {"chords": "warm synth pad", "melody": "voice ooh"}),
    "drumsolo": ((80, 150), {}),
}  # fmt: skip
# Drums of General MIDI at eighths of a bar: 36 bass, 38 snare, 42, 46 hi-hat, 51 ride, 63, 64 congas, 70 maracas.
BEATS = {
    "pop": {36: (0, 5), 38: (2, 6), 42: (0, 1, 2, 3, 4, 5, 6, 7)},
    "rock": {36: (0, 3, 4), 38: (2, 6), 46: (0, 2, 4, 6)},
    "jazz": {51: (0, 2, 3, 4, 6, 7), 42: (2, 6), 36: (0,)},
    "latin": {64: (0, 3, 6), 63: (2, 5, 7), 70: (0, 1, 2, 3, 4, 5, 6, 7)},
    "techno": {36: (0, 2, 4, 6), 46: (1, 3, 5, 7), 38: (2, 6)},
    "march": {38: (0, 2, 3, 4, 6, 7), 36: (0, 4)},
}
DRUM_CHANNEL = 9
TICKS = 480  # in a beat
MOST_BARS = 6  # of an ensemble; an instrument plays 2 to 5
SOUNDFONT = "FluidR3_GM.sf2"
Note = tuple[float, float, int, int, int]  # start and length in beats, pitch, velocity, channel
Degrees = tuple[int, ...]  # of a scale
Random = np.random.Generator


def play(row: Row, soundfont: Path, folder: Path) -> Wave:
    """
    Compose and play what a row of `fluidr3_gm` names.

    Args:
        row: The row.
        soundfont: The file of samples.
        folder: Folder for temporary files.

    Returns:
        (samples,) at 16 kHz.

    Raises:
        ValueError: The program `fluidsynth` fails; the message is its own.
    """
    rng = seeded(row)
    programs, notes, tempo = compose(row, rng)
    score, sound = folder / "score.mid", folder / "sound.wav"
    score.write_bytes(write_midi(programs, notes, tempo))
    command = ["fluidsynth", "-n", "-i", "-q", "-g", "0.5", "-F", str(sound), str(soundfont), str(score)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not sound.is_file():
        raise ValueError(f"fluidsynth: {done.stderr.strip() or 'wrote nothing'}")
    wave = load_waveform(str(sound))
    sound.unlink()
    return wave


def compose(row: Row, rng: Random) -> tuple[dict[int, int], list[Note], float]:
    """Give the program of each channel, the notes, and the tempo in beats a minute."""
    hints, name = row.manifest["caption_hints"], row.name
    if name in ENSEMBLES:
        slowest, fastest = ENSEMBLES[name][0]
        scale, played = SCALES[("major", "minor")[rng.integers(2)]], ENSEMBLES[name][1]
    else:
        told = re.search(r"scale=(\w+); tempo=(\w+)", hints)
        if told is None or name not in PROGRAMS:
            raise ValueError(
                f"{row.stem}: expected an ensemble, or an instrument with scale and tempo; it has {hints!r}."
            )
        scale, (slowest, fastest) = SCALES[told[1]], TEMPI[told[2]]
        played = {part: name for part in ("melody", "chords") if part in hints.split(";")[1]}
    bars = MOST_BARS if name in ENSEMBLES else int(rng.integers(2, MOST_BARS))
    key, progression = int(rng.integers(-5, 7)), PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    programs: dict[int, int] = {}
    notes: list[Note] = []
    for channel, (part, instrument) in enumerate(played.items()):
        programs[channel], middle = PROGRAMS[instrument]
        notes += PARTS[part](rng, scale, progression, middle + key, channel, bars)
    if name in BEATS or name == "drumsolo":
        notes += drum(rng, BEATS.get(name) or BEATS[sorted(BEATS)[rng.integers(len(BEATS))]], bars)
    return programs, notes, rng.uniform(slowest, fastest)


def pitch(scale: Degrees, degree: int, tonic: int) -> int:
    octave, step = divmod(degree, len(scale))
    return int(np.clip(tonic + 12 * octave + scale[step], 24, 103))


def melody(rng: Random, scale: Degrees, progression: Degrees, tonic: int, channel: int, bars: int) -> list[Note]:
    """Walk up and down the scale, in notes of half a beat to two beats, with rests now and then."""
    notes: list[Note] = []
    beat, degree = 0.0, 0
    while beat < 4 * bars:
        length = float(rng.choice([0.5, 0.5, 1, 1, 1.5, 2]))
        degree = int(np.clip(degree + rng.integers(-2, 3), -4, 8))
        if rng.random() > 0.12:
            notes.append((beat, 0.95 * length, pitch(scale, degree, tonic), int(rng.integers(70, 110)), channel))
        beat += length
    return notes


def chords(rng: Random, scale: Degrees, progression: Degrees, tonic: int, channel: int, bars: int) -> list[Note]:
    """Play a triad in each bar, held or as an arpeggio."""
    notes: list[Note] = []
    broken = rng.random() < 0.5
    for bar in range(bars):
        root = progression[bar % len(progression)]
        for voice in range(8 if broken else 3):
            degree = root + 2 * (voice % 3)
            start, length = (4 * bar + voice / 2, 0.9) if broken else (4 * bar, 3.8)
            notes.append((start, length, pitch(scale, degree, tonic - 7), int(rng.integers(60, 95)), channel))
    return notes


def strum(rng: Random, scale: Degrees, progression: Degrees, tonic: int, channel: int, bars: int) -> list[Note]:
    """Strike a chord of root, fifth and octave on each half of a beat, now and then not."""
    notes: list[Note] = []
    for half in range(8 * bars):
        root = progression[half // 8 % len(progression)]
        if rng.random() > 0.2:
            for string, degree in enumerate((root, root + 2, root + 4)):
                start = half / 2 + 0.02 * string
                notes.append((start, 0.45, pitch(scale, degree, tonic - 5), int(rng.integers(60, 100)), channel))
    return notes


def bass(rng: Random, scale: Degrees, progression: Degrees, tonic: int, channel: int, bars: int) -> list[Note]:
    """Play the root of each bar, and at times its fifth, on every beat."""
    notes: list[Note] = []
    for beat in range(4 * bars):
        degree = progression[beat // 4 % len(progression)] + (4 if beat % 2 and rng.random() < 0.4 else 0)
        notes.append((beat, 0.9, pitch(scale, degree, tonic), int(rng.integers(75, 105)), channel))
    return notes


def drum(rng: Random, beats: dict[int, tuple[int, ...]], bars: int) -> list[Note]:
    """Beat a rhythm, with a blow more or less here and there."""
    return [
        (4 * bar + eighth / 2, 0.2, sound, int(rng.integers(70, 115)), DRUM_CHANNEL)
        for bar in range(bars)
        for sound, eighths in beats.items()
        for eighth in range(8)
        if (eighth in eighths) != (rng.random() < 0.06)
    ]


PARTS = {"melody": melody, "second": melody, "chords": chords, "strum": strum, "bass": bass}


def write_midi(programs: dict[int, int], notes: list[Note], tempo: float) -> bytes:
    """Write a standard MIDI file of one track."""
    events: list[tuple[int, bytes]] = []
    for start, length, key, velocity, channel in notes:
        events.append((round(start * TICKS), bytes((0x90 | channel, key, velocity))))
        events.append((round((start + length) * TICKS), bytes((0x80 | channel, key, 0))))
    track, now = bytearray(b"\0\xff\x51\x03" + round(60e6 / tempo).to_bytes(3, "big")), 0
    for channel, program in programs.items():
        track += bytes((0, 0xC0 | channel, program))
    for at, event in sorted(events):
        track += variable_length(at - now) + event
        now = at
    track += b"\0\xff\x2f\0"
    header = (0).to_bytes(2, "big") + (1).to_bytes(2, "big") + TICKS.to_bytes(2, "big")
    return b"MThd" + len(header).to_bytes(4, "big") + header + b"MTrk" + len(track).to_bytes(4, "big") + bytes(track)


def variable_length(number: int) -> bytes:
    """Write a number in groups of seven bits, of which all but the last have the eighth bit set."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))

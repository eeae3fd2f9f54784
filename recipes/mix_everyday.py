"""
Scenes of everyday sounds, with what a teacher hears in them: what `everyday.yaml` learns from.

    python recipes/mix_everyday.py --data runs/everyday/train.csv --teacher yamnet.tflite --output runs/scenes-0

Each scene is one recording of `--data` (a manifest of `prepare_everyday.py`), or two or three: one after another, at
once, or one faintly behind the other, with other speeds, levels and pauses each time. `--seed` gives other scenes,
`--overlaps` and `--strange` other shares of two sounds at once and of recordings made unrecognisable. The teacher is
YAMNet (Google, Apache-2.0) as a TFLite file, run by `ai-edge-litert`; nothing of it is in what is trained. Without one
there are captions only. `--seconds 60` gives longer scenes, of up to four recordings, each over and over.

Writes into `--output`:
    NAME-N.flac           the scenes at 16 kHz, after the name of the folder
    scenes.csv            their captions, and what is heard from which second to which
    targets.safetensors   what is to be heard in them, as `training_mac.objectives.teacher_targets` reads it
A run that was stopped goes on at the next hundred.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr


sys.path.insert(0, str(Path(__file__).parent))

from everyday_grammar import Grammar
from prepare_esc50 import read_table, write_manifest

from processing_mac.audio_mac import load_waveform
from training_mac.objectives.teacher_targets import TeacherTargets


RATE = 16_000  # Hz
SHORT = {"single": 0.48, "followed_by": 0.21, "while": 0.16, "behind": 0.11, "sequence": 0.04}
AT_ONCE = ("while", "behind")
LONG = {"single": 0.15, "followed_by": 0.25, "sequence": 0.6}  # shares in scenes longer than a window of 10 s
VOICES = ("voice", "music")  # kinds whose pitch tells something, so that only their level changes
EMBEDDING, WIDTH = 121, 1024  # YAMNet's tensor before its classes, and the size of that
FRAME, STEP = 15_600, 15_360  # samples at 16 kHz: YAMNet's frame, and its step from one frame to the next
MOST_DRAWS = 10_000  # draws of another recording before the search is given up
PART = 100  # scenes that are written at a time, so that a stopped run goes on after them
CUT_OFF = 3_000  # Hz; a lossy source of some recordings ends there, which must not tell one collection from another


@dataclass
class Event:
    """A recording in a scene: its kind and group, its samples at 16 kHz, and the sample at which it starts there."""

    name: str
    group: str
    wave: np.ndarray
    start: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.wave)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="manifest of the recordings")
    parser.add_argument("--teacher", type=Path, help="yamnet.tflite")
    parser.add_argument("--seconds", type=int, default=10, help="of the longest scenes (default: 10)")
    parser.add_argument("--scenes", type=int, default=4000, help="how many (default: 4000)")
    parser.add_argument("--captions", type=int, default=3, help="wordings of each (default: 3)")
    parser.add_argument("--overlaps", type=float, default=0.27, help="share of scenes of two at once (default: 0.27)")
    parser.add_argument(
        "--strange",
        type=float,
        default=0.12,
        help="share of the recordings of a kind with a broader one that are made so strange that only that is told "
        "(default: 0.12)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of every choice (default: 0)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the scenes")
    options = parser.parse_args(arguments)
    try:
        recordings = read_table(options.data)
        if recordings and "group" not in recordings[0]:
            raise ValueError(f"{options.data} has no column `group`: prepare it anew by prepare_everyday.py.")
        options.output.mkdir(parents=True, exist_ok=True)
        mixer = Mixer(recordings, Grammar(), options.seconds, options.overlaps, options.strange)
        hear = load_teacher(options.teacher) if options.teacher else None
        for first in range(0, options.scenes, PART):
            write_part(mixer, hear, options, range(first, min(first + PART, options.scenes)))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    gather(options.output)


def load_teacher(path: Path, classes: bool = False) -> Callable[[np.ndarray], np.ndarray]:
    """
    Load YAMNet as a function from (samples,) to embeddings (frames, 1024) float16, square roots, of every 0.96 s.

    Args:
        path: yamnet.tflite
        classes: Whether it gives the scores of its classes instead, (frames, 521).

    Raises:
        ValueError: The file is missing, or is another model.
    """
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected yamnet.tflite.")
    interpreter: Any = Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]
    asked = interpreter.get_output_details()[0]["index"] if classes else EMBEDDING
    widths = {one["index"]: int(np.prod(one["shape"])) for one in interpreter.get_tensor_details()}
    if widths.get(EMBEDDING) != WIDTH or widths[place] != FRAME:
        raise ValueError(f"{path}: expected YAMNet, with {WIDTH} values in tensor {EMBEDDING}.")

    def hear(wave: np.ndarray) -> np.ndarray:
        frames = []
        for first in range(0, max(len(wave) - STEP // 2, 1), STEP):
            frame = wave[first : first + FRAME]
            interpreter.set_tensor(place, np.pad(frame, (0, FRAME - len(frame))).astype(np.float32)[None])
            interpreter.invoke()
            told = interpreter.get_tensor(asked).reshape(-1)
            frames.append(told.copy() if classes else np.sqrt(np.maximum(told, 0)))
        return np.stack(frames).astype(np.float16)

    return hear


class Mixer:
    """
    Draws recordings, varies them, and chooses how they follow in a scene.

    Args:
        recordings: Rows of the manifest with audio, source (a kind of the grammar) and group.
        grammar: Grammar that makes the captions.
        seconds: Greatest length of a scene in seconds.
        overlaps: Share of the scenes of at most a window in which two recordings sound at once.
        strange: Share of the recordings of a kind with a broader one that are made strange.

    Raises:
        ValueError: A share is not from 0 to 1.
    """

    def __init__(
        self, recordings: Sequence[dict[str, str]], grammar: Grammar, seconds: int, overlaps: float, strange: float
    ):
        if not (0 <= overlaps <= 1 and 0 <= strange <= 1):
            raise ValueError(f"`--overlaps {overlaps}` and `--strange {strange}`: expected shares from 0 to 1.")
        self.recordings, self.grammar, self.strange = recordings, grammar, strange
        self.long = seconds > 10
        self.longest, self.shares = seconds * RATE, LONG if self.long else with_overlaps(overlaps)
        names = np.array([one["source"] for one in recordings])
        counts = dict(zip(*np.unique(names, return_counts=True), strict=True))
        weights = np.array([counts[name] ** -0.5 for name in names])  # so that speech is not all there is
        self.chances = weights / weights.sum()

    def draw(self, rng: np.random.Generator) -> tuple[str, list[Event]]:
        """Draw the relation of the recordings of a scene, and the recordings themselves, each varied."""
        relation = str(rng.choice(list(self.shares), p=list(self.shares.values())))
        rows: list[dict[str, str]] = []
        most = int(rng.integers(3, 5)) if self.long else 3
        for _ in range({"single": 1, "sequence": most}.get(relation, 2)):
            rows.append(self.draw_other(rows, rng))
        if rows[0]["source"] in ("silence", "noise"):
            relation, rows = "single", rows[:1]
        longest = self.longest // (len(rows) if relation in ("followed_by", "sequence") else 1)
        return relation, [self.make_event(row, longest, rng) for row in rows]

    def make_event(self, row: dict[str, str], longest: int, rng: np.random.Generator) -> Event:
        """
        Vary a recording, some so much that they could be of any kind of the same family.

        A captioner that only ever meets what it knows comes to name one of these whatever it hears. So at times a dog
        barks an octave lower or higher, at times backwards, and all that may be said is that an animal calls.
        """
        wave, general = self.vary(row, longest, rng), self.grammar.general_of(row["source"])
        if general is None or rng.random() >= self.strange:
            return Event(row["source"], row["group"], wave)
        speed = float(rng.choice([rng.uniform(0.4, 0.6), rng.uniform(1.8, 2.6)]))
        wave = soxr.resample(wave, RATE * speed, RATE, quality="QQ")[:longest]
        return Event(general, row["group"], wave[::-1] if rng.random() < 0.5 else wave)

    def draw_other(self, rows: Sequence[dict[str, str]], rng: np.random.Generator) -> dict[str, str]:
        """Draw a recording; after others, one of another kind, not silence or noise, that says something new."""
        heard = [self.grammar.tags_of(row["source"]) for row in rows]
        for _ in range(MOST_DRAWS):
            row = self.recordings[int(rng.choice(len(self.recordings), p=self.chances))]
            tags = self.grammar.tags_of(row["source"])
            told = any(row["source"] in other or one["source"] in tags for one, other in zip(rows, heard, strict=True))
            if not rows or (not told and row["source"] not in ("silence", "noise")):
                return row
        raise ValueError("Found too few kinds of sound to put together: expected three that have nothing in common.")

    def vary(self, row: dict[str, str], longest: int, rng: np.random.Generator) -> np.ndarray:
        """Vary a recording: trim it, cut it to `longest` samples, make it faster or slower, and muffle it at times."""
        wave = trim(load_waveform(row["audio"]))
        tags = self.grammar.tags_of(row["source"])
        if row["source"] == "silence":
            return wave[: int(longest * rng.uniform(0.05, 1))]
        if not any(tag in tags for tag in VOICES) and rng.random() < 0.6:
            wave = soxr.resample(wave, RATE, RATE * float(rng.uniform(0.85, 1.18)), quality="QQ")
        if rng.random() < 0.25:
            wave = soxr.resample(soxr.resample(wave, RATE, 2 * CUT_OFF), 2 * CUT_OFF, RATE)
        if len(wave) > longest:
            first = int(rng.integers(len(wave) - longest + 1))
            wave = wave[first : first + longest]
        if len(wave) > RATE and rng.random() < 0.4:
            wave = wave[: int(len(wave) * rng.uniform(0.4, 1))]
        pause = np.zeros(int(rng.uniform(0.05, 0.8) * RATE), np.float32)
        if self.long:  # long scenes repeat it for a good part of its share
            wave = np.resize(np.concatenate([wave, pause]), int(longest * rng.uniform(0.3, 1)))
        elif len(wave) < 3 * RATE and rng.random() < 0.35:
            wave = np.concatenate([wave, pause] * int(rng.integers(2, 5)))[:longest]
        return fade(wave)


def with_overlaps(share: float) -> dict[str, float]:
    """Give the shares of the relations of short scenes, where two recordings at once have this share together."""
    at_once = sum(SHORT[name] for name in AT_ONCE)
    return {
        name: value * (share / at_once if name in AT_ONCE else (1 - share) / (1 - at_once))
        for name, value in SHORT.items()
    }


def trim(wave: np.ndarray) -> np.ndarray:
    """Cut off the silence before and after a sound."""
    loud = np.flatnonzero(np.abs(wave) > 1e-3 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1] if len(loud) > RATE // 10 else wave


def fade(wave: np.ndarray) -> np.ndarray:
    """Fade in and out over 10 ms, so that a cut does not click."""
    ramp = np.minimum(np.arange(len(wave)) / 160, 1)
    return (wave * ramp * ramp[::-1]).astype(np.float32)


def arrange(relation: str, events: list[Event], longest: int, rng: np.random.Generator) -> np.ndarray:
    """Set the places and levels of the events, and give the scene, (samples,)."""
    for event in events:
        level = np.sqrt(np.mean(event.wave**2) + 1e-12)
        if event.name != "silence":
            event.wave = event.wave * 0.1 / level
    if relation in AT_ONCE:
        first, second = events
        decibels = rng.uniform(0, 5) if relation == "while" else rng.uniform(7, 16)
        length = max(min(len(first.wave), longest), RATE)
        second.wave = np.tile(second.wave, -(-length // len(second.wave)))[: int(length * rng.uniform(0.6, 1))]
        second.wave = fade(second.wave) * 10 ** (-decibels / 20)
        second.start = int(rng.uniform(0, length - len(second.wave) + 1))
    else:
        for before, after in pairwise(events):
            after.wave = after.wave * 10 ** (rng.uniform(-8, 8) / 20)
            after.start = before.end + int(rng.choice([0, rng.uniform(0, 0.6) * RATE]))
    if rng.random() < 0.3:
        lead = int(rng.uniform(0, 1.5) * RATE)
        for event in events:
            event.start += lead
    length = min(longest, max(event.end for event in events) + int(rng.choice([0, rng.uniform(0, 1.5) * RATE])))
    scene = np.zeros(length, np.float32)
    for event in events:
        event.wave = event.wave[: max(length - event.start, 0)]
        scene[event.start : event.end] += event.wave
    if events[0].name == "silence":
        return scene
    scene *= 10 ** (rng.uniform(-32, -1) / 20) / max(np.abs(scene).max(), 1e-6)
    return scene + rng.standard_normal(length).astype(np.float32) * 10 ** (rng.uniform(-100, -62) / 20)


def cut_up(events: Sequence[Event], length: int, grammar: Grammar) -> list[tuple[float, float, set[str]]]:
    """Cut a scene into (first second, end second, tags) wherever what is heard changes, none shorter than 0.3 s."""
    ends = sorted({0, length, *(min(place, length) for event in events for place in (event.start, event.end))})
    stretches = []
    for first, end in pairwise(ends):
        heard = [event.name for event in events if event.start < end and event.end > first]
        if heard and end - first >= 0.3 * RATE:
            stretches.append((first / RATE, end / RATE, set[str]().union(*map(grammar.tags_of, heard))))
    return stretches


def write_part(mixer: Mixer, hear: Callable | None, options: Any, numbers: range) -> None:
    """Write some of the scenes and their targets, unless they exist."""
    table = options.output / f"part-{numbers[0]}.csv"
    if table.is_file():
        return
    targets, rows = TeacherTargets(mixer.grammar.tags), []
    for number in numbers:
        rng = np.random.default_rng([options.seed, number])
        relation, events = mixer.draw(rng)
        scene = arrange(relation, events, mixer.longest, rng)
        path = options.output / f"{options.output.name}-{number}.flac"
        soundfile.write(path, scene, RATE)
        if hear is not None:
            stretches = cut_up(events, len(scene), mixer.grammar)
            targets.add(path.name, hear(scene), stretches, [event.group for event in events])
        names = [event.name for event in events]
        captions = [mixer.grammar.tell(names, relation, rng) for _ in range(options.captions)]
        row = {"audio": path.name, **{f"caption_{k}": text for k, text in enumerate(captions, start=1)}}
        heard = [(event.name, round(event.start / RATE, 2), round(event.end / RATE, 2)) for event in events]
        rows.append(row | {"relation": relation, "events": json.dumps(heard)})
    if hear is not None:
        targets.save(table.with_suffix(".safetensors"))
    write_manifest(table, rows)


def gather(folder: Path) -> None:
    """Join the parts' manifests and targets."""
    parts = sorted(folder.glob("part-*.csv"), key=lambda path: int(path.stem.split("-")[1]))
    heard = [part.with_suffix(".safetensors") for part in parts if part.with_suffix(".safetensors").is_file()]
    if heard:
        TeacherTargets.join([TeacherTargets.load(part) for part in heard]).save(folder / "targets.safetensors")
    rows = [row for part in parts for row in read_table(part)]
    write_manifest(folder / "scenes.csv", rows)
    print(f"{folder / 'scenes.csv'}: {len(rows)} scenes")


if __name__ == "__main__":
    main()

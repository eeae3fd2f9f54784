"""
All recordings to learn from in one long array, as `hear_everyday.py` and `harden_everyday.py` hold them.

An hour is 115 MB in float16.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from everyday_grammar import Grammar
from mix_everyday import VOICES, trim
from prepare_esc50 import read_table

from processing_mac.audio_mac import load_waveform


RATE = 16_000  # Hz
LEVEL, SILENT = 0.1, 1e-5  # root mean square of each recording, and that below which it is left as it is
SHORTEST = RATE // 10  # samples of a recording, without the silence before and after; shorter ones are left out
PLAIN = ("silence", "noise")  # kinds that are never mixed with others
FEWEST = 3  # kinds besides those, for a scene has up to three


@dataclass(frozen=True)
class Recording:
    """
    What is known of a recording.

    Args:
        kind: Its kind in the grammar; "" if nobody knows.
        tags: Numbers of the tags of its kind; None if nobody knows.
        voice: Whether its pitch tells something, as in voices and music; so it may be, where nobody knows.
        first: Its first sample in the bank.
        length: Number of its samples.
    """

    kind: str
    tags: tuple[int, ...] | None
    voice: bool
    first: int
    length: int


@dataclass(frozen=True)
class Bank:
    """Recordings, and the samples of all of them one after another at 16 kHz, (samples,) float16."""

    recordings: Sequence[Recording]
    waves: np.ndarray


def load_bank(tables: Sequence[Path], grammar: Grammar, workers: int) -> Bank:
    """
    Read all recordings of manifests.

    Args:
        tables: Manifests of `prepare_everyday.py`. A row with an empty `source` is of an unknown kind.
        grammar: Grammar that knows the kinds and their tags.
        workers: Number of processes that read; 0 to read in this one.

    Raises:
        ValueError: A table has no column `audio` or `source`, a recording is missing or faulty or of a kind that the
            grammar does not know, or there are too few.
    """
    rows = [(path, row["source"]) for table in tables for path, row in read_rows(table, grammar)]
    paths = [path for path, _ in rows]
    if workers:
        with ProcessPoolExecutor(workers) as pool:
            waves = list(pool.map(read_recording, paths, chunksize=16))
    else:
        waves = list(map(read_recording, paths))
    numbers, recordings, kept, first = {tag: number for number, tag in enumerate(grammar.tags)}, [], [], 0
    for (_, kind), wave in zip(rows, waves, strict=True):
        if len(wave) < SHORTEST:
            continue
        names = grammar.tags_of(kind) if kind else set()
        tags = tuple(sorted(numbers[name] for name in names)) if kind else None
        voice = not kind or any(name in names for name in VOICES)
        recordings.append(Recording(kind, tags, voice, first, len(wave)))
        kept.append(wave)
        first += len(wave)
    kinds = {one.kind for one in recordings} - {"", *PLAIN}
    if len(kinds) < FEWEST:
        raise ValueError(f"{tables[0]}: recordings of {len(kinds)} kinds of sound; expected {FEWEST} or more.")
    return Bank(recordings, np.concatenate(kept))


def read_rows(table: Path, grammar: Grammar) -> list[tuple[Path, dict[str, str]]]:
    """Read a manifest: the path of each recording, relative to the manifest's folder, and its row."""
    rows = read_table(table)
    for column in ("audio", "source"):
        if rows and column not in rows[0]:
            raise ValueError(f"{table} has no column `{column}`: prepare it by prepare_everyday.py.")
    found = [(table.parent / row["audio"], row) for row in rows]
    if missing := [path for path, _ in found if not path.is_file()]:
        raise ValueError(f"{table}: {len(missing)} recordings are missing, the first is {missing[0]}.")
    if unknown := {row["source"] for row in rows} - {"", *grammar.kinds}:
        raise ValueError(f"{table}: {min(unknown)!r} is no kind of everyday_captions.yaml.")
    return found


def read_recording(path: Path) -> np.ndarray:
    """Read a recording at 16 kHz without the silence around it, at one level unless it is silent, (samples,)."""
    wave = trim(load_waveform(str(path)))
    level = np.sqrt(np.mean(wave**2))
    # A click is far above its level; beyond 8 nothing is heard that the peak of the scene would not drown.
    return np.clip(wave * (LEVEL / level if level > SILENT else 1.0), -8, 8).astype(np.float16)

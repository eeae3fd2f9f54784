"""Picks the example sounds: the first recording of each of eight kinds, whatever the model says of it.

    python examples/pick_examples.py --esc50 FOLDER --everyday FOLDER [--output DIR]

The rule, so that nobody can pick what flatters the model: of each collection's `manifest.csv`, in its own order, the
first recording of a kind that the shipped weights have not learnt from, that is under CC0 or CC-BY, was recorded
rather than made, and lasts at least a second. The kinds are the five groups of ESC-50 (fold 5, of which a copy of
full quality is there) and a voice, singing and music of a collection of everyday sounds (its fold `validation`).
`attribution.csv`, written beside the sounds, names title, author, address and licence of each.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import soundfile


Row = Mapping[str, str]
LICENCES = ("CC0", "CC-BY", "CC BY")


class Kind(NamedTuple):
    """A kind of sound: its group in ESC-50 or `kind` in the everyday collection, and the file format to show."""

    group: int | str
    suffix: str
    container: str
    codec: str


KINDS = {
    "an animal": Kind(0, ".flac", "FLAC", "PCM_16"),
    "weather, water and other nature": Kind(1, ".ogg", "OGG", "VORBIS"),
    "a person, without words": Kind(2, ".mp3", "MP3", "MPEG_LAYER_III"),
    "something in the house": Kind(3, ".wav", "WAV", "PCM_16"),
    "the street": Kind(4, ".opus", "OGG", "OPUS"),
    "a voice": Kind("speech", ".flac", "FLAC", "PCM_16"),
    "singing": Kind("singing", ".ogg", "OGG", "VORBIS"),
    "music": Kind("music", ".mp3", "MP3", "MPEG_LAYER_III"),
}


def is_free(row: Row) -> bool:
    """Whether the recording may be passed on with its author's name."""
    licence = row["licence"]
    return licence.startswith(LICENCES) and not any(limit in licence for limit in ("SA", "NC", "ND"))


def is_esc50(row: Row, group: int) -> bool:
    """Whether a row of ESC-50 is of fold 5, of full quality and of the group (ten targets each)."""
    return row["fold"] == "5" and row["hq"] == "1" and int(row["target"]) // 10 == group and is_free(row)


def is_everyday(row: Row, kind: str) -> bool:
    """Whether a row of the everyday collection is a recording of the kind that was kept for validation."""
    recorded = row["fold"] == "validation" and not row["synthetic"]
    return recorded and row["kind"] == kind and float(row["seconds"]) >= 1 and is_free(row)


def read_rows(folder: Path) -> list[Row]:
    """The rows of a collection's manifest, in its order."""
    with open(folder / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def pick(esc50: Path, everyday: Path) -> dict[str, tuple[Path, Row]]:
    """For each kind its file and its row.

    Raises:
        StopIteration: a collection has no recording of a kind.
    """
    tables = read_rows(esc50), read_rows(everyday)
    picked = {}
    for name, kind in KINDS.items():
        if isinstance(kind.group, int):
            row = next(row for row in tables[0] if is_esc50(row, kind.group))
            picked[name] = esc50 / "hq" / row["file"], row
        else:
            row = next(row for row in tables[1] if is_everyday(row, kind.group))
            picked[name] = everyday / row["file"], row
    return picked


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sounds, unchanged but for the file format, and their attribution."""
    parser = argparse.ArgumentParser(description="Pick the example sounds by rule.")
    parser.add_argument("--esc50", type=Path, required=True, help="ESC-50 with a manifest.csv and full-quality hq/")
    parser.add_argument("--everyday", type=Path, required=True, help="everyday sounds with a manifest.csv")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    with open(options.output / "attribution.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "kind", "original", "title", "author", "url", "licence", "changes"])
        for name, (source, row) in pick(options.esc50, options.everyday).items():
            kind = KINDS[name]
            path = options.output / (row.get("category") or row["kind"])
            path = path.with_suffix(kind.suffix)
            samples, rate = soundfile.read(source, dtype="float32")
            soundfile.write(path, samples, rate, format=kind.container, subtype=kind.codec)
            changes = f"excerpt, mono, {rate} Hz, as {kind.suffix[1:]}"
            details = [row[column] for column in ("title", "author", "url", "licence")]
            table.writerow([path.name, name, row["file"], *details, changes])
            print(f"{path}: {len(samples) / rate:.1f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

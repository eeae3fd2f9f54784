"""Finds the recordings of published tables in a folder; everybody who downloaded them has other names for them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from processing_mac.audio_mac import AUDIO_SUFFIXES


SECONDS = 10  # length of a clip of AudioCaps, AudioSet and VGGSound in seconds
TABLES = (".csv", ".txt", ".json")


class Recordings:
    """
    The recordings below a folder, found by the names that a table may give them.

    Args:
        folder: Folder of the recordings; it is searched once, with sub-folders (train, test, …) and links.

    Attributes:
        paths: Path of the first recording of each name without suffix.
        tables: Paths of the files that may be tables, by their names.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.paths: dict[str, str] = {}
        self.tables: dict[str, list[Path]] = {}
        seen: set[str] = set()
        for parent, folders, files in os.walk(folder, followlinks=True):
            if (real := os.path.realpath(parent)) in seen:  # a link that leads back up
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in AUDIO_SUFFIXES:
                    self.paths.setdefault(stem, os.path.join(parent, name))
                elif suffix.lower() in TABLES:
                    self.tables.setdefault(name, []).append(Path(parent, name))

    def find(self, stems: Sequence[str]) -> str | None:
        """Give the recording of the first of these names that there is."""
        return next((self.paths[stem] for stem in stems if stem in self.paths), None)

    def expected(self, stems: Sequence[str]) -> str:
        """Name the paths that a missing recording might have."""
        others = f" (or {', '.join(stems[1:])})" if len(stems) > 1 else ""
        return str(self.folder / f"{stems[0]}.wav{others}")

    def add_audio(self, row: dict[str, Any]) -> dict[str, Any]:
        """Give the row with its recording's path for `youtube_id`, or the paths it might have if that is missing."""
        stems = stems_of_row(row)
        return {**row, "youtube_id": self.find(stems) or self.expected(stems)} if stems else row


def stems_of_row(row: dict[str, Any]) -> list[str]:
    """List the names, without suffix, that the recording of a row of AudioCaps may have; none without its id."""
    youtube_id = str(row.get("youtube_id") or "").strip()
    start, number = str(row.get("start_time") or ""), str(row.get("audiocap_id") or "")
    return list(names(youtube_id, start, number)) if youtube_id else []


def stem_of(name: str) -> str:
    """Give a file's name without folders and without the suffix of a recording."""
    stem, suffix = os.path.splitext(os.path.basename(name.strip().replace("\\", "/")))
    return stem if suffix.lower() in AUDIO_SUFFIXES else stem + suffix


def names(youtube_id: str, start: str, audiocap_id: str = "") -> Iterator[str]:
    """
    Give the file names, without suffix, that a recording may have, in the order in which they are tried.

    The names are made with start and end in seconds, in thousandths, or as six digits: `Y…`, the id alone, id_start,
    id_start_end, and AudioCaps' own number.
    """
    yield f"Y{youtube_id}"
    yield youtube_id
    if start.isdigit():
        begin = int(start)
        end = begin + SECONDS
        times = [
            f"{begin}",
            f"{begin}_{end}",
            f"{begin * 1000}_{end * 1000}",
            f"{begin}.000_{end}.000",
            f"{begin:06d}",
        ]
        for time in times:
            yield f"{youtube_id}_{time}"
            yield f"Y{youtube_id}_{time}"
    if audiocap_id:
        yield audiocap_id

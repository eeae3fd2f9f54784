"""The recording of a row of AudioCaps in a folder, whose file has another name with everybody who downloaded it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processing_mac.audio_mac import AUDIO_SUFFIXES


SECONDS = 10  # length of an AudioCaps clip in seconds


class Recordings:
    """
    The recordings below a folder, found by the names that AudioCaps' rows may give them.

    Args:
        folder: Folder of the recordings; it is searched once, with its sub-folders (train, val, test, …).
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.paths: dict[str, str] = {}
        for parent, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in AUDIO_SUFFIXES:
                    self.paths.setdefault(stem, os.path.join(parent, name))

    def add_audio(self, row: dict[str, Any]) -> dict[str, Any]:
        """Give the row with its recording's path for `youtube_id`, or the paths it might have if that is missing."""
        youtube_id = str(row.get("youtube_id") or "").strip()
        if not youtube_id:
            return row
        stems = list(names(youtube_id, str(row.get("start_time") or ""), str(row.get("audiocap_id") or "")))
        found = next((self.paths[stem] for stem in stems if stem in self.paths), None)
        return {**row, "youtube_id": found or str(self.folder / f"{stems[0]}.wav (or {', '.join(stems[1:])})")}


def names(youtube_id: str, start: str, audiocap_id: str) -> Iterator[str]:
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

"""Which file in a folder is the recording of a row of AudioCaps: everybody who downloaded it named them otherwise."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processing_mac.audio_mac import AUDIO_SUFFIXES


SECONDS = 10  # length of a clip


class Recordings:
    """
    The recordings below a folder, by name.

    Args:
        folder: Searched with its sub-folders (train, val, test, …), once.
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
        """The row with the path of its recording for `youtube_id`; if it is not there, the paths it might have."""
        youtube_id = str(row.get("youtube_id") or "").strip()
        if not youtube_id:
            return row
        stems = list(names(youtube_id, str(row.get("start_time") or ""), str(row.get("audiocap_id") or "")))
        found = next((self.paths[stem] for stem in stems if stem in self.paths), None)
        return {**row, "youtube_id": found or str(self.folder / f"{stems[0]}.wav (or {', '.join(stems[1:])})")}


def names(youtube_id: str, start: str, audiocap_id: str) -> Iterator[str]:
    """
    File names without suffix, in the order in which they are tried.

    With start and end in seconds, in thousandths, or as six digits: `Y…`, the id alone, id_start, id_start_end, and
    AudioCaps' own number.
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

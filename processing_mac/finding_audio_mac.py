"""Finds the recordings that a command line names: files, and all below folders."""

import os
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from .audio_mac import AUDIO_SUFFIXES


def find_audio(inputs: list[str]) -> list[str]:
    """List the named files, and the audio files below the named folders sorted by name, each only once."""
    found: list[str] = []
    for name in inputs:
        found += search_folder(name) if os.path.isdir(name) else [name]
    return list(dict.fromkeys(found))


def search_folder(folder: str) -> list[str]:
    """
    List the audio files below a folder and below the folders that it links to.

    Files with other suffixes are left out, and a message tells how many there were of each suffix.
    """
    found: list[str] = []
    others: Counter[str] = Counter()
    seen: set[str] = set()

    def report(error: OSError) -> None:
        tqdm.write(f"{error.filename}: left out, cannot be searched ({error.strerror})", file=sys.stderr)

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=report):
        if (real := os.path.realpath(parent)) in seen:  # a link to a folder above, or to one that was searched
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in names:
            suffix = os.path.splitext(name)[1]
            if suffix.lower() in AUDIO_SUFFIXES:
                found.append(str(Path(parent, name)))
            else:
                others[suffix or "without a suffix"] += 1
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(8))
        more = f" and {len(others) - 8} more kinds" if len(others) > 8 else ""
        tqdm.write(
            f"{folder}: left out {others.total()} files that are no recordings by their names: {kinds}{more}",
            file=sys.stderr,
        )
    return sorted(found)


__all__ = ["find_audio"]

"""
Checkpoints that are whole or do not count.

A folder's last file lists the others with their sizes. A run that is killed while it writes leaves a folder without
this list; a run that is killed while it deletes leaves a list that no longer fits.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from processing_mac.whole_files_mac import partial_name, write_folder_whole, write_text_whole


MARKER = "whole.json"  # a folder's last file, which lists the others


def mark_whole(folder: Path) -> None:
    """Mark the folder as whole: list every file in it with its size."""
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in files_in(folder)}
    write_text_whole(folder / MARKER, json.dumps(sizes, indent=1))


def is_whole(folder: Path) -> bool:
    """Whether the folder was marked and still holds every file at its full size."""
    try:
        sizes = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """
    Wrap the writing of a folder, and remove the folder if the writing fails.

    Raises:
        OSError: The writing failed; torch and safetensors report a full disk in their own errors, which become this.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(
            f"{folder} could not be written and was removed ({error}). What was whole before is still there: make "
            "room if the disk is full, run the same command again, and it goes on from the last whole checkpoint."
        ) from error


@contextmanager
def write_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to write to; then mark it and rename it to `folder`."""
    with writing(partial_name(folder)), write_folder_whole(folder) as partial:
        yield partial
        mark_whole(partial)


def files_in(folder: Path) -> Iterator[Path]:
    """Go through every file below the folder, except the marker."""
    return (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != MARKER)


def list_checkpoints(folder: Path) -> list[Path]:
    """List the `checkpoint-STEP` folders, the latest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True)


def whole_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints that are whole, the latest first."""
    return [path for path in list_checkpoints(folder) if is_whole(path)]


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Give the latest checkpoint that is whole; None if there is none."""
    return next(iter(whole_checkpoints(folder)), None)


def remove_partial_checkpoints(folder: Path) -> None:
    """Delete the checkpoints that a killed run left half written."""
    for path in list_checkpoints(folder):
        if not is_whole(path):
            print(f"{path} is not whole, and is removed.", flush=True)
            shutil.rmtree(path)

"""Writes files and folders under another name and then renames them, so that they are whole or not there at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_file_whole(path: Path) -> Iterator[Path]:
    """
    Give a temporary name to write a file under, and rename the file when the `with` block ends without an error.

    Args:
        path: Name of the file once it is whole; an older file of this name stays readable until then. Of a link it is
            the file that it leads to.

    Yields:
        The temporary name to write to, in the same folder, so that renaming never copies between disks.

    Raises:
        OSError: Under this name is a device, a pipe or a folder, which no file may replace.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "expected a file, and this is a device, a pipe or a folder", str(path))
    temporary = path.with_name(f"{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """Write a whole text file; names of recordings in it may hold any bytes that the file system gave."""
    with write_file_whole(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


@contextmanager
def write_folder_whole(folder: Path) -> Iterator[Path]:
    """
    Give a temporary folder to write to, which replaces `folder` when the `with` block ends without an error.

    Yields:
        The temporary, empty folder to write to.
    """
    with temporary_folder(folder) as partial:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)


@contextmanager
def write_files_into(folder: Path) -> Iterator[Path]:
    """
    Give a temporary folder to write files to, which are moved to `folder` when the `with` block ends without an error.

    Yields:
        The temporary, empty folder to write them to.
    """
    with temporary_folder(folder / "files") as partial:
        yield partial
        for file in partial.iterdir():
            file.replace(folder / file.name)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Make an empty folder beside `folder` and remove what is left of it at the end or after an error."""
    partial = partial_name(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_name(path: Path) -> Path:
    """Return the name under which a folder is written until it is whole."""
    return path.with_name(f"{path.name}.partial")


__all__ = ["partial_name", "write_file_whole", "write_files_into", "write_folder_whole", "write_text_whole"]

"""Files and folders that are whole or not there: written under another name, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_file_whole(path: Path) -> Iterator[Path]:
    """
    Around the writing of a file.

    Args:
        path: Name of the file once it is whole; what stands there until then stays readable.

    Yields:
        The temporary name to write to, in the same folder, so that renaming never copies between disks.
    """
    temporary = path.with_name(f"{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file; a recording's name in it may be any bytes, as the file system gave them."""
    with write_file_whole(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


@contextmanager
def write_folder_whole(folder: Path) -> Iterator[Path]:
    """
    Around the writing of a folder, which replaces one of the same name only once it is whole.

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
    Around the writing of files that join others in a folder: each appears whole, once all are written.

    Yields:
        The temporary, empty folder to write them to.
    """
    with temporary_folder(folder / "files") as partial:
        yield partial
        for file in partial.iterdir():
            file.replace(folder / file.name)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`; what is left of it at the end, or after an error, is removed."""
    partial = partial_name(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_name(path: Path) -> Path:
    """The name beside a folder that it is written under until it is whole."""
    return path.with_name(f"{path.name}.partial")


__all__ = ["partial_name", "write_file_whole", "write_files_into", "write_folder_whole", "write_text_whole"]

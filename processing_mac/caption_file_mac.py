"""A file of captions that grows by one record for each recording, and that a later run continues."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


DELIMITERS = {"csv": ",", "tsv": "\t"}


class CaptionFile:
    """
    A file of captions in JSONL, CSV or TSV, with the fields `audio`, `caption` and, if asked for, `segments`.

    Each record is written in one piece. If a run was killed while writing, the part of its last record is cut off, so
    that this recording is captioned again. While one run has the file, another one cannot have it.

    Args:
        path: Path of the file, which is made if it does not exist and continued if it does.
        with_segments: Whether records have segments; in a table these are JSON.
        fields: Names of the other fields of a record, the first of which tells records apart.
        format: "jsonl", "csv" or "tsv"; what the suffix of the path says if None.

    Attributes:
        done: Names of the recordings that the file holds; with other fields, values of the first.

    Raises:
        ValueError: The format is another one, the file is a device or holds something else, or another run has it.
        OSError: The file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        with_segments: bool = False,
        fields: Sequence[str] = ("audio", "caption"),
        format: str | None = None,
    ):
        self.format = format or path.suffix.lower().removeprefix(".")
        if self.format not in ("jsonl", *DELIMITERS):
            raise ValueError(f"{path}: expected a name that ends in .jsonl, .csv or .tsv.")
        refuse_devices(path)
        self.path = path
        self.fields = [*fields] + ["segments"] * with_segments
        self.delimiter = DELIMITERS.get(self.format)
        self.start = f"{self.delimiter.join(self.fields)}\n" if self.delimiter else ""
        open(path, "ab").close()  # tells of a missing folder in the system's words
        self.lock = lock_output(path)
        try:
            self.done = self.resume()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other runs have the file."""
        self.lock.release()

    def unfinished(self, recording: str) -> Path:
        """Name the file for the segments of a long recording that is being captioned; no other recording has it."""
        name = hashlib.sha256(os.fsencode(recording)).hexdigest()[:12]
        return self.path.with_name(f"{self.path.name}.{name}.unfinished.jsonl")

    def resume(self) -> set[str]:
        """Cut off a half-written record at the end and return the recordings that are done."""
        with open(self.path, "a+b") as file:
            file.seek(0)
            content = file.read()
            self.check_start(content)
            whole = content[: content.rfind(b"\n") + 1]
            done = self.parse(whole.decode("utf-8", "surrogateescape"))  # a file's name may be any bytes
            file.truncate(len(whole))
            if not whole:
                file.write(self.start.encode())
        return done

    def check_start(self, content: bytes) -> None:
        """Refuse to change a file that does not begin as one of this class with these fields does."""
        start = self.start.encode() or f'{{"{self.fields[0]}": '.encode()
        if not content.startswith(start[: len(content)]):
            raise ValueError(f"{self.path}: holds something else, or other fields than {', '.join(self.fields)}.")

    def parse(self, text: str) -> set[str]:
        """Return the recordings that the whole records of a file name."""
        try:
            if not self.delimiter:
                records = [json.loads(line) for line in text.split("\n") if line]
                if any(list(record) != self.fields for record in records):
                    raise ValueError(f"expected the fields {', '.join(self.fields)} in each record")
                return {record[self.fields[0]] for record in records}
            table = csv.DictReader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
            return {row[self.fields[0]] for row in table}
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise ValueError(
                f"{self.path}: is no file of captions such as this command would write ({error})."
            ) from error

    def append(self, record: dict[str, Any]) -> None:
        """Write the record of one recording, which holds every field; on a full disk, nothing of it."""
        record = {field: record[field] for field in self.fields}
        if not self.delimiter:
            line = json.dumps(record, ensure_ascii=False) + "\n"
        else:
            text = io.StringIO()
            cells = [value if isinstance(value, str) else json.dumps(value) for value in record.values()]
            csv.writer(text, delimiter=self.delimiter, lineterminator="\n").writerow(cells)
            line = text.getvalue()
        append_whole(self.path, line)


def append_whole(path: Path, text: str) -> None:
    """Write text at the end of a file; on a full disk, nothing of it."""
    size = path.stat().st_size
    try:
        with open(path, "ab") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
    except OSError:
        with suppress(OSError):  # what cannot be cut off now is by the next run
            os.truncate(path, size)
        raise


def refuse_devices(path: Path) -> None:
    """Raise a ValueError for what exists and is neither a file nor a folder: some of these are read without an end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path}: is a device or a pipe; expected a file.")


def lock_output(path: Path) -> FileLock:
    """
    Take the lock of an output, which its owner must release.

    Raises:
        ValueError: Another run has it.
        OSError: The folder of the output is missing or cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{path}: another run of this command writes to it.") from None
    return lock


__all__ = ["CaptionFile", "append_whole", "lock_output", "refuse_devices"]

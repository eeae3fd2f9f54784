"""A growing file of captions, one record a recording, that a later run continues."""

import csv
import io
import json
from pathlib import Path
from typing import Any


class CaptionFile:
    """
    Captions in `.jsonl` or `.csv`, with the fields `audio`, `caption` and, if asked for, `segments`.

    A record is written whole and at once. What a killed run left of its last record is cut off, so that this recording
    is captioned again.

    Args:
        path: The file; made if it does not exist, continued if it does.
        with_segments: Whether records have segments (in a `.csv` as JSON).

    Attributes:
        done: The recordings that it holds.

    Raises:
        ValueError: another suffix, or a file that holds something else.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, with_segments: bool = False):
        if path.suffix not in (".jsonl", ".csv"):
            raise ValueError(f"{path}: expected a name that ends in .jsonl or .csv.")
        self.path = path
        self.fields = ["audio", "caption"] + ["segments"] * with_segments
        self.start = f"{','.join(self.fields)}\n" if path.suffix == ".csv" else ""
        self.done = self.resume()

    def resume(self) -> set[str]:
        """Cut off a half-written record and list the recordings that are done."""
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
        """Refuse to touch a file that was not written here, with these fields."""
        start = self.start.encode() or b'{"audio": '
        if not content.startswith(start[: len(content)]):
            raise ValueError(f"{self.path}: holds something else, or other fields than {', '.join(self.fields)}.")

    def parse(self, text: str) -> set[str]:
        """The recordings in whole records."""
        try:
            if self.path.suffix == ".jsonl":
                records = [json.loads(line) for line in text.split("\n") if line]
                if any(list(record) != self.fields for record in records):
                    raise ValueError(f"expected the fields {', '.join(self.fields)} in each record")
                return {record["audio"] for record in records}
            return {row["audio"] for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)}
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise ValueError(
                f"{self.path}: is no file of captions such as this command would write ({error})."
            ) from error

    def append(self, record: dict[str, Any]) -> None:
        """Write one recording's record."""
        record = {field: record[field] for field in self.fields}
        if self.path.suffix == ".jsonl":
            line = json.dumps(record, ensure_ascii=False) + "\n"
        else:
            text = io.StringIO()
            cells = [value if isinstance(value, str) else json.dumps(value) for value in record.values()]
            csv.writer(text, lineterminator="\n").writerow(cells)
            line = text.getvalue()
        with open(self.path, "ab") as file:
            file.write(line.encode("utf-8", "surrogateescape"))


__all__ = ["CaptionFile"]

"""Files of the tests of commands: manifests that they read, and what they wrote, read back as its users do."""

import csv
import json
from pathlib import Path


ROWS = [
    ("a.wav", "dog", "a dog barks", "the dog is barking"),
    ("b.wav", "rain", "rain falls on a roof", ""),
    ("c.wav", "church_bells", "a bell rings twice", "rain falls on a roof"),
]


def write_manifest(path: Path, rows: list[tuple], header: str = "audio,source,caption_1,caption_2") -> None:
    """Write a manifest with these columns."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """Read the rows of a table."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_jsonl(path: str | Path) -> list[dict]:
    """Read an object a line."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]

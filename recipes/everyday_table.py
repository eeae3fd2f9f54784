"""
The table of the everyday sounds, `everyday_sources.csv`: a row for each recording, and what is known of it.

So that it stays short, an empty cell of a column of the manifest is that of the row above, within a source; "-" stands
for nothing. Cells say with braces what follows from others:

    {name} {extra}      the row's own cells, as are {title} and {source_id}
    {words}             the last part of the name without extension, with spaces for "_"
    {stem}              {words} without the number at their end
    {folder}            the name's first part
    {number} {index}    the recording's number in its source, counted from 1 and from 0
    {first X} {second X} {all X}   column X of the first or second part of a mix, or of all, without repetition
    {parts}             all parts, as the manifest names them

`parts` and `cut` are of the row alone: what a recording is made of (`everyday_mixes.py`), and where it is in its
source (`everyday_sources.py`).
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


TABLE = Path(__file__).with_name("everyday_sources.csv")
MANIFEST = ("source_id", "fold", "labels", "caption_hints", "title", "author", "url", "licence", "kind", "group",
            "synthetic", "teacher_agree")  # fmt: skip
OWN = ("source", "number", "name", "extra", "cut", "parts")
LONGEST = {"source_id": 300, "caption_hints": 256, "title": 110}  # characters
ORDER = ("title", "source_id", "group", "labels", "caption_hints")  # in which cells may name one another


@dataclass
class Part:
    """A recording within a mix: its file without extension; second at which it starts and its gain, if known."""

    file: str
    place: tuple[float, float] | None = None

    @classmethod
    def read(cls, text: str) -> "Part":
        """Read `source/number@start*gain`, or the file alone; `esc50/NAME` is a recording of ESC-50."""
        file, _, place = text.partition("@")
        start, _, gain = place.partition("*")
        return cls(file, (float(start), float(gain)) if place else None)


@dataclass
class Row:
    """A recording: its source, number and name there, how it is made, and its columns of the manifest."""

    source: str
    number: int
    name: str
    extra: str
    cut: str
    parts: list[Part]
    manifest: dict[str, str]

    @property
    def stem(self) -> str:
        """The recording's file without extension."""
        return f"{self.source}/{self.source}_{self.number:05}"


def read_rows(path: Path = TABLE) -> list[Row]:
    """
    Read the table.

    Raises:
        ValueError: A part of a mix is in no row.
    """
    rows: list[Row] = []
    with open(path, encoding="utf-8", newline="") as file:
        above: dict[str, str] = {}
        for cells in csv.DictReader(file):
            if cells["source"]:
                above = {"source": cells["source"]}
            above |= {name: cells[name] for name in MANIFEST if cells[name]}
            parts = [Part.read(text) for text in cells["parts"].split(" + ") if text]
            told = {name: "" if cell == "-" else cell for name, cell in above.items() if name in MANIFEST}
            rows.append(
                Row(above["source"], int(cells["number"]), cells["name"], cells["extra"], cells["cut"], parts, told)
            )
    known = {row.stem: row for row in rows}
    for row in sorted(rows, key=lambda row: bool(row.parts)):  # mixes tell of recordings that have told of themselves
        fill(row, known)
    return sorted(rows, key=lambda row: (row.source, row.number))


def fill(row: Row, known: dict[str, Row]) -> None:
    """Replace the braces in the cells of a row by what they stand for."""
    values = row.manifest | names(row, known)
    for name in (*ORDER, *(name for name in MANIFEST if name not in ORDER)):
        text = row.manifest.get(name, "").format_map(values)
        values[name] = row.manifest[name] = text[: LONGEST.get(name, len(text))]


def names(row: Row, known: dict[str, Row]) -> dict[str, str]:
    """List what the cells of a row may name besides other cells of the manifest."""
    words = PurePosixPath(row.name).stem.replace("_", " ").strip()
    values = {
        "name": row.name,
        "extra": row.extra,
        "words": words,
        "stem": re.sub(r"[ .]*\d+$", "", words),
        "spaced": re.sub(r"[_.]", " ", row.name),
        "short": row.name[:20],
        "folder": row.name.split("/")[0],
        "number": str(row.number),
        "index": str(row.number - 1),
    }
    return values | tell_parts(row, known)


def tell_parts(row: Row, known: dict[str, Row]) -> dict[str, str]:
    """Tell what the cells of a mix may say of its parts."""
    ours = []
    for part in row.parts:
        if not part.file.startswith("esc50/") and part.file not in known:
            raise ValueError(f"{TABLE.name}: {row.stem} is made of {part.file}, which has no row.")
        ours.append(known.get(part.file))
    names = dict.fromkeys(
        f"{one.source}:{one.manifest['source_id']}" if one else part.file.replace("/", ":") + ".opus"
        for part, one in zip(row.parts, ours, strict=True)
    )
    values = {"parts": " + ".join(names), "count": str(len(names)), "part": next(iter(names), "")}
    if ours and ours[0]:
        values["child"] = ours[0].manifest["caption_hints"].replace("female", "child-like")
    for column in MANIFEST:
        told = [one.manifest[column] for one in ours if one]
        values[f"all {column}"] = " + ".join(sorted(set(told)))
        for place, one in zip(("first", "second"), ours, strict=False):
            values[f"{place} {column}"] = one.manifest[column] if one else ""
    return values

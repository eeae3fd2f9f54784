"""The tables of data sets as they are published: rows with the name of a recording and what is said of it."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation_mac.datasets.recordings import names, stem_of, stems_of_row
from evaluation_mac.metrics.answers import caption_of
from processing_mac.dataset_mac import read_rows, text_cells


@dataclass(frozen=True)
class Entry:
    """
    A row of a table.

    Args:
        line: Its line, or its place in a JSON, from 1.
        stems: Names, without folder and suffix, that its recording may have.
        captions: Captions that it gives.
        labels: Labels that it gives, by name or code.
    """

    line: int
    stems: tuple[str, ...]
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def read_audiocaps(path: Path) -> Iterator[Entry]:
    """audiocap_id,youtube_id,start_time,caption: a row a caption."""
    for line, row in rows_of(path, "youtube_id", "start_time", "caption"):
        yield Entry(line, tuple(stems_of_row(row)), captions=text_cells(row, {}, "caption"))


def read_clotho(path: Path) -> Iterator[Entry]:
    """file_name,caption_1,…,caption_5."""
    for line, row in rows_of(path, "file_name", "caption_1"):
        yield Entry(line, (stem_of(row["file_name"]),), captions=text_cells(row, {}, "caption"))


def read_esc50(path: Path) -> Iterator[Entry]:
    """filename,fold,target,category,…"""
    for line, row in rows_of(path, "filename", "category"):
        yield Entry(line, (stem_of(row["filename"]),), labels=(row["category"],))


def read_fsd50k(path: Path) -> Iterator[Entry]:
    """fname,labels,mids: the labels with commas between them."""
    for line, row in rows_of(path, "fname", "labels"):
        yield Entry(line, (row["fname"].strip(),), labels=tuple(row["labels"].split(",")))


def read_vggsound(path: Path) -> Iterator[Entry]:
    """YouTube id, start in seconds, label, train or test; without a head. Only the test rows count."""
    for line, cells in cells_of(path, ",", 4, "YouTube id, start, label, train or test"):
        if cells[3] == "test":
            yield Entry(line, tuple(names(cells[0], cells[1])), labels=(cells[2],))


def read_audioset(path: Path) -> Iterator[Entry]:
    """YouTube id, start, end, codes of labels with commas between them; three lines of comments first."""
    for line, cells in cells_of(path, ",", 4, 'YouTube id, start, end, "codes of labels"'):
        yield Entry(line, tuple(names(cells[0], cells[1].split(".")[0])), labels=tuple(cells[3].split(",")))


def read_dcase17(path: Path) -> Iterator[Entry]:
    """Name of the recording, start, end, label, with tabs between them: a row a label."""
    for line, (file, _, _, label) in cells_of(path, "\t", 4, "recording, start, end, label, by tabs"):
        stem = stem_of(file)
        youtube_id, *times = stem.rsplit("_", 2)
        start = times[0].split(".")[0] if len(times) == 2 else ""
        yield Entry(line, tuple(dict.fromkeys((stem, *names(youtube_id, start)))), labels=(label,))


def read_tut17(path: Path) -> Iterator[Entry]:
    """Name of the recording and scene, with a tab between them; what follows does not matter."""
    for line, cells in cells_of(path, "\t", 2, "recording, scene, by a tab"):
        yield Entry(line, (stem_of(cells[0]),), labels=(cells[1],))


def read_vocalsound(path: Path) -> Iterator[Entry]:
    """{"data": [{"wav": path, "labels": code}]}."""
    content = read_json(path)
    rows = content.get("data") if isinstance(content, dict) else None
    for line, row in fields_of(path, rows, '{"data": [{"wav": …, "labels": …}]}', "wav", "labels"):
        yield Entry(line, (stem_of(row["wav"]),), labels=tuple(row["labels"].split(",")))


def is_ltu(path: Path) -> bool:
    """Tell whether this is one of LTU's evaluation files: a JSON that holds a list."""
    return path.suffix == ".json" and isinstance(read_json(path), list)


def read_ltu(path: Path) -> Iterator[Entry]:
    """[{"audio_id": path, "output": "Audio caption: …" or "Labels: one; another"}]: a row a caption or a recording."""
    for line, row in fields_of(path, read_json(path), '[{"audio_id": …, "output": …}]', "audio_id", "output"):
        output = row["output"]
        labels = output.split(":")[-1].split(";")
        yield Entry(
            line, (stem_of(row["audio_id"]),), captions=(caption_of(output),), labels=tuple(map(str.strip, labels))
        )


def rows_of(path: Path, *columns: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a CSV with a head, in which these columns must be filled."""
    for line, row in read_rows(path):
        if lacking := [name for name in columns if not str(row.get(name) or "").strip()]:
            has = ", ".join(str(name) for name in row)
            raise ValueError(
                f"{path}, line {line}: nothing in `{lacking[0]}`; expected {', '.join(columns)}, got {has}."
            )
        yield line, row


def cells_of(path: Path, delimiter: str, count: int, form: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table without a head, without comments and blank lines."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        for cells in reader:
            if not any(cells) or cells[0].startswith("#"):
                continue
            if len(cells) < count:
                raise ValueError(f"{path}, line {reader.line_num}: expected {form}; got {delimiter.join(cells)!r}.")
            yield reader.line_num, [cell.strip() for cell in cells]


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}).") from error


def fields_of(path: Path, rows: Any, form: str, *fields: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The objects of a list in a JSON, in which these fields must be texts."""
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected {form}.")
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) and row[name] for name in fields):
            raise ValueError(f"{path}, entry {place}: expected {form}; got {str(row)[:100]}.")
        yield place, row

"""Manifests of clips with their captions."""

import csv
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from pyarrow.lib import ArrowException
from pyarrow.parquet import ParquetFile

from .audio_mac import AUDIO_SUFFIXES


MANIFESTS = (".csv", ".jsonl", ".parquet")
TEXTS = ("caption", "phrase", "source", "prompt")
COLUMNS = ("audio", *TEXTS)
NO_FOLDER = Path()


@dataclass(frozen=True, slots=True)
class Clip:
    """
    One recording and what is said of it.

    Args:
        audio: Path of the recording, or anything else that `load_waveform` takes; `str(audio)` names it.
        captions: Sentences that describe it; any of them may be drawn in training, all are references in evaluation.
        phrases: The same as noun phrases, used where two recordings are joined ("X, followed by Y").
        source: A label of what sounds, if the manifest has one.
        prompt: What the captions answer, if it is not the usual prompt.
        scene: "silence" or "noise" if it is no sound of something, which training puts together with no other clip.
    """

    audio: Any
    captions: tuple[str, ...]
    phrases: tuple[str, ...] = ()
    source: str | None = None
    prompt: str | None = None
    scene: str | None = None


@dataclass
class ClipRows:
    """The clips of a table, the row that each stands in ("train.csv, line 7"), and what is wrong with other rows."""

    clips: list[Clip] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def check(self) -> list[Clip]:
        """
        The clips.

        Raises:
            ValueError: something is wrong with a row.
        """
        if self.problems:
            raise ValueError(summarize(self.problems))
        return self.clips


def summarize(problems: list[str], shown: int = 20) -> str:
    """The first of many problems, one a line, and their number."""
    more = [f"and {len(problems) - shown} more, {len(problems)} in all."] if len(problems) > shown else []
    return "\n".join([*problems[:shown], *more])


def read_manifest(
    path: str | Path, audio_root: str | Path | None = None, columns: Mapping[str, str] | None = None
) -> list[Clip]:
    """
    Read a `.csv`, `.jsonl` or `.parquet` manifest.

    Columns: `audio` (an address, or a path relative to `audio_root`, by default the manifest's folder), `caption`, or
    `caption_1`, `caption_2`, …, or lists of captions, and optionally `phrase`, `source` and `prompt`. Empty cells are
    left out.

    Args:
        columns: What the manifest calls them, where it is not so: `{"audio": "file_name"}`.

    Raises:
        ValueError: no such file, another format, a missing column, or rows without audio or caption, with their
            line numbers.
    """
    path = Path(path)
    return read_clips(path, path.parent if audio_root is None else Path(audio_root), columns or {}).check()


def read_clips(path: Path, root: Path, columns: Mapping[str, str]) -> ClipRows:
    """All that is right and wrong in a manifest; see `read_manifest`."""
    problems: list[str] = []
    rows = make_clips(str(path), read_rows(path, problems), root, columns, "row" if is_parquet(path) else "line")
    rows.problems = problems + rows.problems
    return rows


def make_clips(
    origin: str, rows: Iterable[tuple[int, dict[str, Any]]], root: Path, columns: Mapping[str, str], unit: str = "line"
) -> ClipRows:
    """Clips of numbered rows; a column that no row has is one problem, not one a row."""
    found = ClipRows()
    for number, clip in iter_clips(origin, rows, root, columns, found.problems, unit):
        found.places.append(f"{origin}, {unit} {number}")
        found.clips.append(clip)
    return found


def iter_clips(
    origin: str,
    rows: Iterable[tuple[int, dict[str, Any]]],
    root: Path,
    columns: Mapping[str, str],
    problems: list[str],
    unit: str = "line",
) -> Iterator[tuple[int, Clip]]:
    """
    Clips of numbered rows, one at a time and with their numbers: tables of millions of rows are never held as objects.

    Args:
        origin: Name of the table in messages.
        rows: Numbers and cells of the rows.
        root: Folder that audio paths are relative to.
        columns: What the table calls its columns, where it is not as `read_manifest` says.
        problems: Where rows that make no clip are noted.
        unit: What the numbers count: "line" or "row".
    """
    layouts: dict[tuple, dict[str, list[str]]] = {}  # of the rows' keys: matching names costs more than all the rest
    seen, count = dict.fromkeys([""]), 0
    for number, row in rows:
        keys = tuple(row)
        if (layout := layouts.get(keys)) is None:
            layout = layouts[keys] = find_columns(keys, columns)
            seen.update(dict.fromkeys(keys))
        try:
            clip = make_clip(row, layout, root, columns)
        except ValueError as error:
            problems.append(f"{origin}, {unit} {number}: {error}")
        else:
            count += 1
            yield number, clip
    if missing := missing_columns(origin, [name for name in seen if name], columns):
        problems[:] = missing
    elif not count and not problems:
        problems.append(f"{origin}: holds no rows.")


def make_clip(row: dict[str, Any], layout: dict[str, list[str]], root: Path, columns: Mapping[str, str]) -> Clip:
    """
    The clip of a row.

    Args:
        row: Its cells.
        layout: From `find_columns`.
        root, columns: As in `iter_clips`.

    Raises:
        ValueError: it makes none; the message says why.
    """
    if any(isinstance(cell, str) and "\0" in cell for cell in row.values()):
        raise ValueError("holds a NUL character; is it text?")
    if None in row:
        raise ValueError("more cells than columns; is a comma in a caption without quotes?")
    audio = audio_cell(row, columns)
    captions, phrases, sources, prompts = [texts_in(row, layout[name]) if layout[name] else () for name in TEXTS]
    if audio is None or not captions:
        name = "audio" if captions or audio is None else "caption"
        what = columns.get(name, name)
        raise ValueError(f"no `{what}`" + (f" or `{what}_1`, …" if name == "caption" else ""))
    return Clip(
        join_root(root, audio), captions, phrases, sources[0] if sources else None, prompts[0] if prompts else None
    )


def find_columns(keys: Iterable[str | None], columns: Mapping[str, str]) -> dict[str, list[str]]:
    """The keys of a row that hold each of `COLUMNS`: `name`, `name_1`, `name_2`, …"""
    found = {}
    for name in COLUMNS:
        pattern = re.compile(rf"{re.escape(columns.get(name, name))}(_\d+)?")
        found[name] = [key for key in keys if key and pattern.fullmatch(key)]
    return found


def missing_columns(origin: str, names: list[str], columns: Mapping[str, str]) -> list[str]:
    """What is said of columns that are needed or asked for and that no row has, with the nearest name."""
    problems = [
        f"{origin}: `columns` maps {name!r}; expected some of {', '.join(COLUMNS)}."
        for name in columns
        if name not in COLUMNS
    ]
    wanted = {name: columns.get(name, name) for name in COLUMNS if name in columns or name in ("audio", "caption")}
    for name, column in wanted.items():
        if names and not any(re.fullmatch(rf"{re.escape(column)}(_\d+)?", key) for key in names):
            free = [key for key in names if key not in wanted.values()]
            near = difflib.get_close_matches(column, free, n=1, cutoff=0.4)
            hint = f" Did you mean `{near[0]}`: `columns: {{{name}: {near[0]}}}`?" if near else ""
            problems.append(f"{origin}: no column `{column}`; it has {', '.join(names)}.{hint}")
    return problems


def audio_cell(row: dict[str, Any], columns: Mapping[str, str]) -> Any:
    """The audio as it stands: a file's name may begin with a space. None if there is none."""
    audio = row.get(columns.get("audio", "audio"))
    if isinstance(audio, (dict, bytes)):
        raise ValueError("the audio column holds encoded audio, not paths; read it with `format: dataset`.")
    if not isinstance(audio, str) and (hasattr(audio, "__array__") or isinstance(audio, (list, tuple))):
        raise ValueError(
            "the audio column holds samples without their rate; expected paths, or `Audio` of `datasets`."
        )
    is_blank = audio is None or isinstance(audio, (int, float)) or not str(audio).strip()
    return None if is_blank else audio


def is_address(audio: str) -> bool:
    """Whether this is no path: `http://…`, `s3://…`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", audio) is not None


def join_root(root: Path, audio: Any) -> Any:
    """A path below the folder of recordings; what is an address or no path stays as it is."""
    is_path = isinstance(audio, str) and root != NO_FOLDER and not is_address(audio)
    return str(root / audio) if is_path else audio


def text_cells(row: dict[str, Any], columns: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The texts in the cells of `name`, `name_1`, `name_2`, …, of which each may be a list."""
    return texts_in(row, find_columns(row, columns)[name])


def texts_in(row: dict[str, Any], keys: Iterable[str]) -> tuple[str, ...]:
    """The texts in some cells of a row, without blank ones."""
    texts: list[str] = []
    for key in keys:
        cell = row[key].tolist() if hasattr(row[key], "tolist") else row[key]  # numpy's arrays and texts
        texts += [text.strip() for text in (cell if isinstance(cell, list) else [cell]) if isinstance(text, str)]
    return tuple(filter(None, texts))


def is_parquet(path: Path) -> bool:
    """Whether a manifest has rows instead of lines."""
    return path.suffix == ".parquet"


def read_rows(path: Path, problems: list[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    Line numbers (row numbers, from 1, of Parquet) and rows of a manifest.

    Args:
        problems: Where lines that hold no row are noted; without it they are errors.

    Raises:
        ValueError: whatever is wrong with the file or a line, with their name and number.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "no such manifest"
        raise ValueError(f"{path}: {what}.")
    if path.suffix not in MANIFESTS:
        raise ValueError(f"{path}: expected a {', '.join(MANIFESTS[:-1])} or {MANIFESTS[-1]} manifest.")
    try:
        if is_parquet(path):
            yield from _read_parquet(path)
            return
        with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte-order mark
            yield from _read_csv(path, file) if path.suffix == ".csv" else _read_jsonl(path, file, problems)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, which line {_undecodable_line(path)} is not ({error})."
        ) from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _undecodable_line(path: Path) -> int:
    """The first line that is not UTF-8; 1 of a text in which lines cannot be told."""
    with open(path, "rb") as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode()
            except UnicodeDecodeError:
                return line
    return 1


def _read_csv(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV by the line that they begin in; one that a quote spoils would take others with it."""
    reader = csv.DictReader(file, strict=True)
    begin = 1
    try:
        names = [name for name in reader.fieldnames or [] if name]
        if doubled := _find_double(names):
            raise ValueError(f"{path}, line 1: two columns are called `{doubled}`.")
        begin = reader.line_num + 1
        for row in reader:
            cells = [cell for cell in row.values() if isinstance(cell, str)]
            line = reader.line_num - sum(cell.count("\n") for cell in cells)
            _refuse_swallowed_rows(f"{path}, line {line}", cells, len(names))
            yield line, row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {begin}: not valid CSV ({error}); is a quote opened here and not closed, or not doubled?"
        ) from error


def _refuse_swallowed_rows(place: str, cells: list[str], columns: int) -> None:
    """A caption may have several lines, but a line that names a recording is a row that a quote has swallowed."""
    for line in (line for cell in cells for line in cell.splitlines()[1:]):
        parts = line.split(",")
        if len(parts) >= columns and any(part.strip().lower().endswith(AUDIO_SUFFIXES) for part in parts):
            raise ValueError(f"{place}: a quote that is opened here takes in another row: {line[:100]!r}.")


def _find_double(names: list[str]) -> str | None:
    """A name that stands twice."""
    return next((name for name in names if names.count(name) > 1), None)


def _read_jsonl(path: Path, file: TextIO, problems: list[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(file, start=1):
        parsed = _parse_line(f"{path}, line {line}", text, problems) if text.strip() else None
        if parsed is not None:
            yield line, parsed


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    row = 0
    try:
        file = ParquetFile(path)
        if doubled := _find_double(file.schema_arrow.names):
            raise ValueError(f"two columns are called `{doubled}`")
        for batch in file.iter_batches(1024):
            for row, cells in enumerate(batch.to_pylist(), start=row + 1):  # noqa: B020  counted on
                yield row, cells
    except (OSError, ValueError, ArrowException) as error:
        place = f"{path}, after row {row}" if row else str(path)
        raise ValueError(f"{place}: cannot be read as Parquet ({error}).") from error


def _parse_line(place: str, text: str, problems: list[str] | None) -> dict[str, Any] | None:
    """A line of JSONL; a bad one is noted, or raised where nobody takes notes."""
    try:
        row = json.loads(text, object_pairs_hook=_refuse_double_keys)
        if "\\u" in text:
            json.dumps(row, ensure_ascii=False).encode()  # half of a pair of surrogates is JSON, but no text
        if isinstance(row, dict):
            return row
        problem = f'{place}: expected an object, such as {{"audio": …, "caption": …}}.'
    except (ValueError, RecursionError) as error:
        problem = f"{place}: not valid JSON ({error})."
    if problems is None:
        raise ValueError(problem)
    problems.append(problem)
    return None


def _refuse_double_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if doubled := _find_double([name for name, _ in pairs]):
        raise ValueError(f"two fields are called `{doubled}`")
    return dict(pairs)


__all__ = ["Clip", "ClipRows", "iter_clips", "make_clips", "read_manifest"]

"""Reads manifests, which are tables of clips with their captions."""

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
    One recording with the texts that belong to it.

    Args:
        audio: Path of the recording, or anything else that `load_waveform` takes; `str(audio)` names it.
        captions: Sentences that describe it; training draws any of them, in evaluation all are references.
        phrases: Noun phrases that describe it, used where two recordings are joined ("X, followed by Y").
        source: Label of what sounds, if the manifest has one.
        prompt: Prompt that the captions answer, if it is not the usual one.
        scene: Name of a scene without a source, "silence" or "noise", which training joins with no other clip.
    """

    audio: Any
    captions: tuple[str, ...]
    phrases: tuple[str, ...] = ()
    source: str | None = None
    prompt: str | None = None
    scene: str | None = None


@dataclass
class ClipRows:
    """
    The clips of a table.

    Args:
        clips: Clips of the rows that are right.
        places: Place of each clip, such as "train.csv, line 7".
        problems: Messages about the other rows.
    """

    clips: list[Clip] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def check(self) -> list[Clip]:
        """
        Return the clips.

        Raises:
            ValueError: Something is wrong with a row.
        """
        if self.problems:
            raise ValueError(summarize(self.problems))
        return self.clips


def summarize(problems: list[str], shown: int = 20) -> str:
    """List the first `shown` of many problems, one on each line, and their number."""
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
        path: Path of the manifest.
        audio_root: Folder to which the paths of recordings are relative.
        columns: Names of the manifest's columns where they differ from these, such as `{"audio": "file_name"}`.

    Raises:
        ValueError: The file is missing or has another format, a column is missing, or rows have no audio or caption;
            the message gives their line numbers.
    """
    path = Path(path)
    return read_clips(path, path.parent if audio_root is None else Path(audio_root), columns or {}).check()


def read_clips(path: Path, root: Path, columns: Mapping[str, str]) -> ClipRows:
    """Read a manifest as `read_manifest` does, but return its problems beside its clips."""
    problems: list[str] = []
    rows = make_clips(str(path), read_rows(path, problems), root, columns, "row" if is_parquet(path) else "line")
    rows.problems = problems + rows.problems
    return rows


def make_clips(
    origin: str, rows: Iterable[tuple[int, dict[str, Any]]], root: Path, columns: Mapping[str, str], unit: str = "line"
) -> ClipRows:
    """Make the clips of numbered rows; a column that no row has is one problem and not one for each row."""
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
    Make the clips of numbered rows one at a time, so that a table of millions of rows is never held as objects.

    Args:
        origin: Name of the table in messages.
        rows: Numbers and cells of the rows.
        root: Folder to which audio paths are relative.
        columns: Names of the table's columns where they differ from those of `read_manifest`.
        problems: List to which a message is added for each row that makes no clip.
        unit: Word for what the numbers count, "line" or "row".
    """
    # One layout for all rows with the same keys, since matching their names takes longer than all the rest.
    layouts: dict[tuple, dict[str, list[str]]] = {}
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
    Make the clip of a row.

    Args:
        row: Cells of the row by their column.
        layout: Keys of the row, as `find_columns` returns them.
        root: Folder to which audio paths are relative.
        columns: Names of the table's columns where they differ from those of `read_manifest`.

    Raises:
        ValueError: The row makes no clip; the message says why.
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
    """Find, for each of `COLUMNS`, the keys of a row that hold it: `name`, `name_1`, `name_2`, …"""
    found = {}
    for name in COLUMNS:
        pattern = re.compile(rf"{re.escape(columns.get(name, name))}(_\d+)?")
        found[name] = [key for key in keys if key and pattern.fullmatch(key)]
    return found


def missing_columns(origin: str, names: list[str], columns: Mapping[str, str]) -> list[str]:
    """Make a message for each column that is needed or asked for and that no row has, with the nearest name."""
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
    """Return the audio cell unchanged, since a file's name may begin with a space, or None if it is blank."""
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
    """Tell whether this is an address, such as `http://…` or `s3://…`, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", audio) is not None


def join_root(root: Path, audio: Any) -> Any:
    """Put a path below the folder of recordings; an address, or audio of another type, is returned unchanged."""
    is_path = isinstance(audio, str) and root != NO_FOLDER and not is_address(audio)
    return str(root / audio) if is_path else audio


def text_cells(row: dict[str, Any], columns: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Collect the texts in the cells of `name`, `name_1`, `name_2`, …, each of which may be a list."""
    return texts_in(row, find_columns(row, columns)[name])


def texts_in(row: dict[str, Any], keys: Iterable[str]) -> tuple[str, ...]:
    """Collect the texts in some cells of a row, without blank ones."""
    texts: list[str] = []
    for key in keys:
        cell = row[key].tolist() if hasattr(row[key], "tolist") else row[key]  # arrays and strings of numpy
        texts += [text.strip() for text in (cell if isinstance(cell, list) else [cell]) if isinstance(text, str)]
    return tuple(filter(None, texts))


def is_parquet(path: Path) -> bool:
    """Tell whether a manifest is Parquet, whose rows are counted, and not text, whose lines are."""
    return path.suffix == ".parquet"


def read_rows(path: Path, problems: list[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    Read the rows of a manifest with their line numbers (for Parquet their row numbers), from 1.

    Args:
        path: Path of the manifest.
        problems: List to which a message is added for each line that holds no row; if None, such a line is an error.

    Raises:
        ValueError: Something is wrong with the file or a line; the message gives its name and number.
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
        raise ValueError(explain_undecodable(path, error)) from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}).") from error


def explain_undecodable(path: Path, error: UnicodeDecodeError) -> str:
    """Say that a file is not UTF-8, and from which line on; it is the first if every line by itself is."""
    with open(path, "rb") as file:
        line = next((line for line, content in enumerate(file, start=1) if not _is_utf8(content)), 1)
    return f"{path}: expected UTF-8 text, which line {line} is not ({error})."


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_csv(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the rows of a CSV with the lines in which they begin, and refuse a file whose quotes do not match."""
    reader = csv.DictReader(file, strict=True)
    begin = 1
    try:
        names = [name for name in reader.fieldnames or [] if name]
        _refuse_other_separators(path, names)
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


def _refuse_other_separators(path: Path, names: list[str]) -> None:
    """Refuse a header of one name that holds several, as spreadsheets of many languages write it."""
    for separator, words in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and separator in names[0]:
            raise ValueError(f"{path}, line 1: its columns are separated by {words}; expected commas.")


def _refuse_swallowed_rows(place: str, cells: list[str], columns: int) -> None:
    """
    Refuse a cell with a whole row inside, which a quote that is not closed has taken in.

    A caption may have several lines, but none that names a recording.
    """
    for line in (line for cell in cells for line in cell.splitlines()[1:]):
        parts = line.split(",")
        if len(parts) >= columns and any(part.strip().lower().endswith(AUDIO_SUFFIXES) for part in parts):
            raise ValueError(f"{place}: a quote that is opened here takes in another row: {line[:100]!r}.")


def _find_double(names: list[str]) -> str | None:
    """Return the first name that stands twice, if there is one."""
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
    """Parse a line of JSONL; a problem is added to `problems` or, without such a list, raised."""
    try:
        row = json.loads(text, object_pairs_hook=_refuse_double_keys)
        if "\\u" in text:
            # Half of a surrogate pair is valid JSON, but it cannot be encoded as text.
            json.dumps(row, ensure_ascii=False).encode()
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


__all__ = ["Clip", "ClipRows", "explain_undecodable", "iter_clips", "make_clips", "read_manifest"]

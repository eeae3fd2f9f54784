"""The sources of data as numbered clips, one after another: one reader a format, and what the readers share."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation_mac.datasets.recordings import Recordings
from processing_mac.dataset_mac import Clip, is_address, is_parquet, iter_clips, read_rows
from training_mac.data.hub_datasets import read_dataset
from training_mac.data.json_list import read_json_list
from training_mac.data.problems import Problems
from training_mac.recipe.data_fields import Source


NumberedClips = Iterator[tuple[int, Clip]]


def read_source(source: Source, problems: Problems, missing: Problems) -> NumberedClips:
    """
    Read the clips of a source whose recordings exist, with the numbers of their lines or rows.

    Args:
        source: Source of any format but shards, which are streamed and have no rows to list.
        problems: List to which rows that make no clip are added.
        missing: List to which rows whose recording is missing are added.

    Raises:
        ValueError: Nothing of the source can be read.
    """
    if folders := missing_folders(source):
        problems.extend(folders)
        return
    files, origin = Files(), row_name(source)
    for number, clip in READERS[source.format](source, problems):
        if isinstance(clip.audio, str) and clip.audio not in files:
            missing.append(f"{origin} {number}: {why_missing(clip.audio)}")
        else:
            yield number, with_defaults(clip, source)


def why_missing(audio: str) -> str:
    """Say that a recording is missing, as errors do."""
    if is_address(audio):
        return f"{audio} is an address; training reads files, so fetch it first"
    return f"no recording {audio}"


def with_defaults(clip: Clip, source: Source) -> Clip:
    """Fill in the fields of a clip that its source gives for all of its clips."""
    if source.scene is None and (source.prompt is None or clip.prompt):
        return clip
    return replace(clip, prompt=clip.prompt or source.prompt, scene=source.scene)


def row_name(source: Source) -> str:
    """Give what errors call a row of the source, before its number."""
    has_lines = source.format != "dataset" and not is_parquet(Path(source.path))
    return f"{source.path}, {'line' if has_lines else 'row'}"


def missing_folders(source: Source) -> list[str]:
    """List the audio folders that are missing, so that each is one problem and not one a row."""
    roots = source.audio_root.values() if isinstance(source.audio_root, dict) else [source.audio_root]
    return [f"{source.path}: no audio folder {root}." for root in roots if root and not Path(root).is_dir()]


class Files:
    """Tells which files exist; each folder is listed once, since to ask for every file is many times slower."""

    def __init__(self) -> None:
        self.listed: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self.listed:
            self.listed[folder] = list_files(folder)
        # The file system may know the name in another case, or as a path through other folders.
        return name in self.listed[folder] or os.path.isfile(path)


def list_files(folder: str) -> set[str]:
    """List the names of the files in a folder; an empty set if the folder is missing."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def read_manifest_source(source: Source, problems: Problems) -> NumberedClips:
    """Read a manifest: CSV, JSONL or Parquet."""
    path = Path(source.path)
    yield from read_table(source, read_rows(path, problems), Path(source.audio_root or path.parent), {}, problems)


def read_clotho(source: Source, problems: Problems) -> NumberedClips:
    """Read a table of Clotho: file_name, caption_1 … caption_5."""
    path = Path(source.path)
    root, columns = Path(source.audio_root or path.parent), {"audio": "file_name"}
    yield from read_table(source, read_rows(path, problems), root, columns, problems)


def read_audiocaps(source: Source, problems: Problems) -> NumberedClips:
    """Read a table of AudioCaps: audiocap_id, youtube_id, start_time, caption; `Recordings` finds the files."""
    path = Path(source.path)
    recordings = Recordings(source.audio_root or path.parent)
    rows = ((line, recordings.add_audio(row)) for line, row in read_rows(path, problems))
    yield from read_table(source, rows, Path(), {"audio": "youtube_id"}, problems)


def read_table(
    source: Source,
    rows: Iterator[tuple[int, dict[str, Any]]],
    root: Path,
    columns: dict[str, str],
    problems: Problems,
) -> NumberedClips:
    """Read the clips of a source's rows; the source's own names of columns override those of the format."""
    unit = "row" if is_parquet(Path(source.path)) else "line"
    return iter_clips(str(source.path), rows, root, {**columns, **source.columns}, problems, unit)


def read_openaqa(source: Source, problems: Problems) -> NumberedClips:
    """
    Read OpenAQA's JSON, a list of {instruction, input, audio_id, dataset, task, output}; an instruction is a prompt.

    `audio_root` is a folder, or a mapping from `dataset` to folders. A relative `audio_id` is looked for below it; an
    absolute one, as in the released files, counts by its file's name only.
    """
    path = Path(source.path)
    columns = {"audio": "audio_id", "caption": "output", "prompt": "instruction"}
    names = {**columns, **source.columns}
    root = source.audio_root or path.parent

    def place_audio(line: int, row: dict[str, Any]) -> dict[str, Any] | None:
        folder = root.get(str(row.get("dataset"))) if isinstance(root, dict) else root
        if folder is None:
            problems.append(f"{path}, line {line}: no folder for dataset {row.get('dataset')!r} in `audio_root`.")
            return None
        audio = str(row.get(names["audio"]) or "")
        name = os.path.basename(audio) if source.audio_root and os.path.isabs(audio) else audio
        question = " ".join(str(row[key]) for key in (names["prompt"], "input") if row.get(key))
        return {**row, names["audio"]: os.path.join(folder, name) if name else "", names["prompt"]: question}

    rows = ((line, placed) for line, row in read_json_list(path) if (placed := place_audio(line, row)))
    yield from read_table(source, rows, Path(), columns, problems)


READERS: dict[str, Callable[[Source, Problems], NumberedClips]] = {
    "manifest": read_manifest_source,
    "audiocaps": read_audiocaps,
    "clotho": read_clotho,
    "openaqa": read_openaqa,
    "dataset": read_dataset,
}

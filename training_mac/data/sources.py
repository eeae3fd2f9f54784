"""Sources of data -> clips: one reader a format, and what they share."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from processing_mac.dataset_mac import Clip, ClipRows, make_clips, read_clips, read_rows
from training_mac.data.audiocaps import Recordings
from training_mac.data.hub_datasets import read_dataset
from training_mac.recipe.data_fields import DataRecipe, Source, parse_sources


@dataclass
class SourceRows:
    """The rows of a source; `missing` are those, among the clips, whose recording is not there."""

    rows: ClipRows
    missing: list[str] = field(default_factory=list)


def load_clips(value: Any, data: DataRecipe, split: str | None = "train") -> list[Clip]:
    """
    The clips of `train_data` or `eval_data`, each recording once with all its captions; of OpenAQA each question.

    With `skip_bad_audio` recordings that are not there are left out; `split` as in `parse_sources`.

    Raises:
        ValueError: a bad row, or a recording that is not there, with file and line.
    """
    return [clip for source in parse_sources(value, data, split) for clip in load_source(source, data.skip_bad_audio)]


def load_source(source: Source, skip_missing: bool = False) -> list[Clip]:
    """The clips of one source."""
    found = read_source(source)
    if not skip_missing:
        found.rows.problems += found.missing
    clips = found.rows.check()
    if not clips:
        raise ValueError(f"{source.path}: none of its recordings are there.\n" + "\n".join(found.missing[:5]))
    return clips if source.format == "openaqa" else merge_captions(clips)


def read_source(source: Source) -> SourceRows:
    """All that is right and wrong in a source."""
    if source.format == "webdataset":
        raise ValueError(f"{source.path}: shards are streamed, and a stream has no rows to list.")
    if problems := missing_folders(source):
        return SourceRows(ClipRows(problems=problems))
    found = READERS[source.format](source)
    if source.prompt is not None:
        found.clips = [clip if clip.prompt else replace(clip, prompt=source.prompt) for clip in found.clips]
    return drop_missing(found)


def missing_folders(source: Source) -> list[str]:
    """Audio folders that are not there: one problem each, not one a row."""
    roots = source.audio_root.values() if isinstance(source.audio_root, dict) else [source.audio_root]
    return [f"{source.path}: no audio folder {root}." for root in roots if root and not Path(root).is_dir()]


def drop_missing(found: ClipRows) -> SourceRows:
    """Tell the clips whose file is there from the others."""
    names = {clip.audio for clip in found.clips if isinstance(clip.audio, str)}
    gone = {name for name in names if not Path(name).is_file()}
    if not gone:
        return SourceRows(found)
    pairs = list(zip(found.clips, found.places, strict=True))
    missing = [f"{place}: no recording {clip.audio}" for clip, place in pairs if clip.audio in gone]
    pairs = [pair for pair in pairs if pair[0].audio not in gone]
    found.clips, found.places = [clip for clip, _ in pairs], [place for _, place in pairs]
    return SourceRows(found, missing)


def merge_captions(clips: list[Clip]) -> list[Clip]:
    """One clip a recording (and prompt), with the captions of all its rows."""
    merged: dict[Any, Clip] = {}
    for clip in clips:
        key = (clip.audio, clip.prompt)
        if (known := merged.get(key)) is not None:
            clip = replace(known, captions=known.captions + clip.captions, phrases=known.phrases + clip.phrases)
        merged[key] = clip
    return list(merged.values())


def read_manifest_source(source: Source) -> ClipRows:
    """CSV, JSONL or Parquet."""
    path = Path(source.path)
    return read_clips(path, Path(source.audio_root or path.parent), source.columns)


def read_clotho(source: Source) -> ClipRows:
    """Clotho's tables: file_name, caption_1 … caption_5."""
    path = Path(source.path)
    return read_clips(path, Path(source.audio_root or path.parent), {"audio": "file_name", **source.columns})


def read_audiocaps(source: Source) -> ClipRows:
    """AudioCaps' tables: audiocap_id, youtube_id, start_time, caption; see `Recordings` for the names of files."""
    path = Path(source.path)
    recordings = Recordings(source.audio_root or path.parent)
    problems: list[str] = []
    rows = ((line, recordings.add_audio(row)) for line, row in read_rows(path, problems))
    columns = {"audio": "youtube_id", **source.columns}
    found = make_clips(str(path), rows, Path(), columns)
    found.problems = problems + found.problems
    return found


def read_openaqa(source: Source) -> ClipRows:
    """
    OpenAQA's JSON: a list of {instruction, input, audio_id, dataset, task, output}; a prompt is the instruction.

    `audio_root` is a folder, or a mapping from `dataset` to folders. A relative `audio_id` is looked for below it; of
    an absolute one, as released files have it, only the file's name is.
    """
    path = Path(source.path)
    problems: list[str] = []
    columns = {"audio": "audio_id", "caption": "output", "prompt": "instruction", **source.columns}
    root = source.audio_root or path.parent

    def place_audio(line: int, row: dict[str, Any]) -> dict[str, Any] | None:
        folder = root.get(row.get("dataset")) if isinstance(root, dict) else root
        if folder is None:
            problems.append(f"{path}, line {line}: no folder for dataset {row.get('dataset')!r} in `audio_root`.")
            return None
        audio = str(row.get(columns["audio"]) or "")
        name = Path(audio).name if source.audio_root and Path(audio).is_absolute() else audio
        question = " ".join(filter(None, [row.get(columns["prompt"]), row.get("input")]))
        return {**row, columns["audio"]: str(Path(folder) / name) if name else "", columns["prompt"]: question}

    rows = ((line, placed) for line, row in read_json_list(path) if (placed := place_audio(line, row)))
    found = make_clips(str(path), rows, Path(), columns)
    found.problems = problems + found.problems
    return found


def read_json_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    Line numbers and objects of a JSON list, one at a time, since the whole would take many times the file's size.

    Raises:
        ValueError: no such file, or something else than a list of objects.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    text, decoder = path.read_text(encoding="utf-8-sig"), json.JSONDecoder()
    position, line, counted = skip_space(text, 0), 1, 0
    opener = "["
    while text[position : position + 1] == opener:
        position = skip_space(text, position + 1)
        line, counted = line + text.count("\n", counted, position), position
        if opener == "[" and text[position : position + 1] == "]":
            return
        try:
            row, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {line}: not valid JSON ({error}).") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {line}: expected an object; got {str(row)[:50]!r}.")
        yield line, row
        position, opener = skip_space(text, position), ","
    if text[position : position + 1] != "]":
        line += text.count("\n", counted, position)
        raise ValueError(f"{path}, line {line}: expected a list of objects; got {text[position : position + 20]!r}.")


def skip_space(text: str, position: int) -> int:
    """The position of the next character that means something."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position


READERS: dict[str, Callable[[Source], ClipRows]] = {
    "manifest": read_manifest_source,
    "audiocaps": read_audiocaps,
    "clotho": read_clotho,
    "openaqa": read_openaqa,
    "dataset": read_dataset,
}

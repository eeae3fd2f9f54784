"""What a model says of each clip: asked on all processes, written as it comes, continued by a later run."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm

from processing_mac.caption_file_mac import CaptionFile


Answer = dict[str, Any] | ValueError
Ask = Callable[[list[str]], Iterator[tuple[str, Answer]]]  # recordings -> each with its record, or why there is none


class RecordFile(CaptionFile):
    """`mac-caption`'s growing `.csv`, with other fields beside `audio`. Only the main process may open it."""

    def __init__(self, path: Path, fields: Sequence[str]):
        self.path = path
        self.fields = ["audio", *fields]
        self.delimiter = ","
        self.start = f"{self.delimiter.join(self.fields)}\n"
        self.done = self.resume()

    def read(self) -> dict[str, dict[str, str]]:
        """Every recording's record."""
        with open(self.path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return {row["audio"]: row for row in csv.DictReader(file)}


def collect_records(
    path: Path, fields: Sequence[str], recordings: Sequence[str], ask: Ask, batch_size: int
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """
    Ask about every recording that the file does not hold yet. Call it on all processes.

    Args:
        path: Path of the file that the main process writes, and makes if it does not exist.
        fields: Names of a record's fields beside `audio`.
        recordings: Names of the recordings to ask about.
        ask: Function that gives, for a few recordings, each with its record or the error why it cannot be read.
        batch_size: Number of recordings that a process is given at a time.

    Returns:
        On the main process the records of the file and {recording: error} of those that could not be read, else empty.

    Raises:
        OSError, ValueError: the file cannot be written, or holds something else or recordings that were not asked for.
    """
    state = PartialState()
    file, todo = open_file(state, path, fields, recordings)
    failed: dict[str, str] = {}
    bar = tqdm(
        total=len(recordings), initial=len(recordings) - len(todo), unit="clip", disable=not state.is_main_process
    )
    stride = batch_size * state.num_processes
    for start in range(0, len(todo), stride):
        mine = todo[start : start + stride][state.process_index :: state.num_processes]
        answers = gather_object(list(ask(mine)) if mine else [])
        if file is None:
            continue
        for recording, answer in answers:
            if isinstance(answer, ValueError):
                failed[recording] = str(answer)
                tqdm.write(f"mac-eval: {answer}", file=sys.stderr)
            else:
                file.append({"audio": recording, **answer})
            bar.update()
    bar.close()
    return file.read() if file else {}, failed


def open_file(
    state: PartialState, path: Path, fields: Sequence[str], recordings: Sequence[str]
) -> tuple[RecordFile | None, list[str]]:
    """The file, on the main process, and on all processes what is left to ask."""
    file = RecordFile(path, fields) if state.is_main_process else None
    todo: list[list[str]] = [[]]
    if file:
        refuse_strangers(path, file.done, recordings)
        todo = [[recording for recording in recordings if recording not in file.done]]
    broadcast_object_list(todo)
    return file, todo[0]


def refuse_strangers(path: Path, done: set[str], recordings: Sequence[str]) -> None:
    """Refuse to score, with these clips, records of others."""
    strangers = sorted(done - set(recordings))
    if strangers:
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        raise ValueError(f"{path}: holds {', '.join(strangers[:3])}{more}, which the manifest does not list.")


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """
    Note in the folder what its results are of, or see that they are of the same.

    Raises:
        ValueError: the folder holds results of another model, manifest or way of asking.
    """
    path = folder / "settings.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    earlier = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name in settings if earlier.get(name) != settings[name]]
    if changed:
        raise ValueError(
            f"{folder}: holds results with other settings ({', '.join(changed)}); choose or make another folder."
        )

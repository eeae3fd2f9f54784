"""
The clips of one source, as a table on disk: written once, and mapped into memory by every process that reads it.

As Python objects, millions of clips would take two to three times the memory, and again in each worker of a data
loader: to read an object is to change its count of references, and so to copy the page of memory that it lies in.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute

from processing_mac.dataset_mac import Clip


SCHEMA = pyarrow.schema(
    {
        "number": pyarrow.int64(),  # number of the line or row in the source, from 1
        "audio": pyarrow.string(),  # a path; null where the recording stays in a dataset, at row `number` - 1
        "captions": pyarrow.list_(pyarrow.string()),
        "phrases": pyarrow.list_(pyarrow.string()),
        "source": pyarrow.string(),
        "prompt": pyarrow.string(),
        "scene": pyarrow.string(),
    }
)
BATCH = 5_000  # rows that are Python objects at a time while a table is written


def write_clips(clips: Iterable[tuple[int, Clip]], file: Path) -> None:
    """
    Write numbered clips as an Arrow file.

    Args:
        clips: Pairs of a line or row number and its clip, one after another.
        file: Path of the Arrow file.
    """
    rest = iter(clips)
    with pyarrow.OSFile(str(file), "wb") as stream, pyarrow.ipc.new_file(stream, SCHEMA) as writer:
        while batch := list(itertools.islice(rest, BATCH)):
            columns: dict[str, list] = {name: [getattr(clip, name) for _, clip in batch] for name in SCHEMA.names[2:]}
            columns["number"] = [number for number, _ in batch]
            columns["audio"] = [clip.audio if isinstance(clip.audio, str) else None for _, clip in batch]
            writer.write_batch(pyarrow.RecordBatch.from_pydict(columns, schema=SCHEMA))


class ClipTable(Sequence):
    """
    The clips of one source, read from its table.

    Args:
        file: Path of a table that `write_clips` wrote.
        origin: Name of a row in errors, before its number, such as "train.csv, line".
        merged: Whether rows of the same recording and prompt become one clip with all their captions.
        stored: Function from a row, counted from 0, to its audio, for a source that keeps the audio itself.
    """

    def __init__(
        self, file: Path, origin: str = "row", merged: bool = False, stored: Callable[[int], Any] | None = None
    ):
        self.origin = origin
        self.stored = stored
        with pyarrow.memory_map(str(file)) as stream:
            self.table = pyarrow.ipc.open_file(stream).read_all()  # maps the file into memory and copies nothing
        self.groups = group_rows(self.table) if merged else None

    def __len__(self) -> int:
        return self.table.num_rows if self.groups is None else len(self.groups[1]) - 1

    def rows(self, index: int) -> list[int]:
        """Give the rows of the table that a clip is made of."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)} clips.")
        if self.groups is None:
            return [index]
        order, starts = self.groups
        return order[starts[index] : starts[index + 1]].tolist()

    def cell(self, column: str, row: int) -> Any:
        """Give the value of one cell of the table."""
        return self.table[column][row].as_py()

    def place(self, index: int) -> str:
        """Name the line or row in which the clip is first told of, for errors."""
        return f"{self.origin} {self.cell('number', self.rows(index)[0])}"

    def recording(self, index: int) -> Any:
        """Give the audio of a clip: a path, or an object that decodes itself."""
        row = self.rows(index)[0]
        audio = self.cell("audio", row)
        return self.stored(self.cell("number", row) - 1) if audio is None and self.stored else audio

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        rows = self.rows(index)
        captions, phrases = (
            tuple(text for row in rows for text in self.cell(name, row)) for name in ("captions", "phrases")
        )
        told = (self.cell(name, rows[0]) for name in ("source", "prompt", "scene"))
        return Clip(self.recording(index), captions, phrases, *told)

    def texts(self, *columns: str) -> Iterator[str]:
        """Go through every caption and phrase, or what else of the columns is asked for, clip after clip."""
        for batch in self.table.select(columns or ["captions", "phrases"]).to_batches(BATCH):
            for cells in zip(*batch.to_pydict().values(), strict=True):
                yield from itertools.chain(*cells)

    def prompts(self) -> set[str | None]:
        """Give the prompts of the clips, None for the default: all of them if they are one or two, else some."""
        column = self.table["prompt"]
        bounds = pyarrow.compute.min_max(column).as_py()  # not all: of questions there may be millions
        return {bounds["min"], bounds["max"]} | ({None} if column.null_count else set())

    def indices_with(self, text: str) -> list[int]:
        """Find the rows whose captions, phrases or prompt hold a text."""
        found: set[int] = set()
        for name in ("captions", "phrases"):
            column = self.table[name].combine_chunks()
            holds = pyarrow.compute.match_substring(column.flatten(), text)
            found.update(column.value_parent_indices().filter(holds).to_pylist())
        prompts = pyarrow.compute.match_substring(self.table["prompt"].fill_null(""), text)
        found.update(np.flatnonzero(prompts.to_numpy()).tolist())
        return sorted(found)


class JoinedClips(Sequence):
    """The clips of several sources, one source after another."""

    def __init__(self, sources: Sequence[Sequence[Clip]]):
        self.sources = sources
        self.ends = np.cumsum([len(clips) for clips in sources])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def find(self, index: int) -> tuple[Sequence[Clip], int]:
        """Give the source that holds a clip, and the clip's index in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)} clips.")
        source = int(np.searchsorted(self.ends, index, side="right"))
        return self.sources[source], index - (int(self.ends[source - 1]) if source else 0)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        clips, place = self.find(index)
        return clips[place]

    @property
    def recordings(self) -> "Recordings":
        """The audio of each clip, without its texts."""
        return Recordings(self)


class Recordings(Sequence):
    """The audio of clips, without their texts."""

    def __init__(self, clips: JoinedClips):
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: Any) -> Any:
        clips, place = self.clips.find(index)
        return clips.recording(place) if isinstance(clips, ClipTable) else clips[place].audio


def group_rows(table: pyarrow.Table) -> tuple[np.ndarray, np.ndarray] | None:
    """
    Group the rows that are of the same recording and prompt.

    Returns:
        The rows, group after group in the order in which recordings are first named, and where each group starts,
        with the end as a last entry; None where every row is a recording of its own.
    """
    audio = table["audio"]
    if audio.null_count:  # recordings that a dataset keeps: each row is one of its own
        return None
    codes = [column.combine_chunks().dictionary_encode().indices.to_numpy() for column in
             (audio, table["prompt"].fill_null(""))]  # fmt: skip
    keys = codes[0].astype(np.int64) * (int(codes[1].max(initial=0)) + 1) + codes[1]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(keys):
        return None
    group = np.argsort(np.argsort(first))[inverse]  # groups are numbered by first appearance
    order = np.argsort(group, kind="stable")
    return order, np.searchsorted(group[order], np.arange(len(first) + 1))

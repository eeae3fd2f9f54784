"""The one run that writes an index: it continues what is there, part by part, and takes out what is gone."""

import json
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save

from processing_mac.whole_files_mac import write_file_whole, write_text_whole

from .index_folder import (
    FAILED,
    LOCK,
    NEXT_PART,
    SCHEMA,
    SETTINGS,
    BrokenPartError,
    IndexSettings,
    join_parts,
    part_files,
    read_part,
    read_states,
    read_table,
)
from .index_states import States, round_states, size_of


PART_ROWS, PART_BYTES = 1000, 2**28  # a part is written when it has so many segments, or states of this size
# What a run that was killed may leave. Any other file in the folder is somebody's.
PARTIAL = re.compile(
    r"(part-\d+\.(parquet|safetensors)|index\.json|failed\.jsonl|next-part\.txt|embeddings\.parquet)\.part"
)
SPARSE = 0.5  # a part with a smaller share of states that count is written anew


class IndexWriter:
    """
    An index that grows. While one run has it, another one cannot have it.

    Args:
        folder: Folder of the index, which is made if it does not exist.

    Attributes:
        notes: Sentences on what was found damaged, and what becomes of it.
        lost: Recordings of damaged parts, by their absolute paths, which are to be heard again.

    Raises:
        ValueError: The folder holds something else, or another run writes to it.
        OSError: The folder cannot be made or read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: is a file; an index is a folder")
        folder.mkdir(parents=True, exist_ok=True)
        others = [file for file in folder.iterdir() if file.name != LOCK and not PARTIAL.fullmatch(file.name)]
        if others and not (folder / SETTINGS).exists():
            raise ValueError(f"{folder}: holds something else than an index; choose or make another folder")
        self.lock = FileLock(folder / LOCK)
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"{folder}: another run of this command writes to it") from None
        self.notes: list[str] = []
        self.lost: list[str] = []
        self.damaged: list[Path] = []
        self.waiting: list[tuple[dict, States]] = []  # rows with their states, in one list: a stop parts none of them
        self.bytes = 0
        self.table = join_parts([])

    def __enter__(self) -> "IndexWriter":
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others write."""
        self.lock.release()

    def open(self, settings: IndexSettings) -> None:
        """
        Start or continue the index with these settings, without the parts that are damaged.

        Raises:
            ValueError: It was made by another model or with other settings.
            OSError: A part cannot be read now; nothing was changed.
        """
        self.settings = settings
        if (self.folder / SETTINGS).exists():
            refuse_changes(self.folder, IndexSettings.read(self.folder), settings)
        else:
            write_text_whole(self.folder / SETTINGS, settings.write())
        parts = []
        for file in part_files(self.folder):
            try:
                parts.append(read_part(file, settings.weights))
            except BrokenPartError as error:
                self.give_up(file, error)
        self.keep_number(max([self.read_number(), *(int(file.stem[5:]) + 1 for file in part_files(self.folder))]))
        for file in list(self.folder.iterdir()):
            orphan = re.fullmatch(r"part-\d+\.safetensors", file.name) and not file.with_suffix(".parquet").exists()
            if orphan or PARTIAL.fullmatch(file.name):  # a run was killed before the part was whole
                file.unlink()
        self.table = join_parts(parts)

    def read_number(self) -> int:
        """Read the number of the next part; 0 if the index does not keep it yet."""
        file = self.folder / NEXT_PART
        if not file.exists():
            return 0
        try:
            return int(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: expected the number of the next part; delete it and run again") from error

    def keep_number(self, number: int) -> None:
        """Keep the number of the next part: a reader may still look for a part that was taken out, by its name."""
        self.number = number
        write_text_whole(self.folder / NEXT_PART, f"{number}\n")

    def give_up(self, file: Path, error: BrokenPartError) -> None:
        """
        Note what a damaged part held, or set it aside if nobody can tell.

        Its table stays until the end of the run: if this one is stopped, the next still knows what to hear again.
        """
        try:
            self.lost += read_table(file)["audio"].drop_duplicates().tolist()
        except BrokenPartError:
            for damaged in (file.with_suffix(".safetensors"), file):
                if damaged.exists():
                    damaged.rename(damaged.with_name(f"{damaged.name}.damaged"))
            self.notes.append(
                f"{error}; it is set aside as {file.stem}.*.damaged. Which recordings it held is not known: name all "
                "folders of the index, so that they are heard again"
            )
        else:
            self.damaged.append(file)
            self.notes.append(f"{error}; what it held is heard again")

    def find_new(self, files: Iterable[str]) -> list[str]:
        """Return those of the files, by their absolute paths, that the index does not hold as they are now."""
        rows = self.table.drop_duplicates("audio")[["audio", "size", "modified"]]
        known = {audio: (size, modified) for audio, size, modified in rows.itertuples(index=False)}

        def is_known(file: str) -> bool:
            try:
                return known.get(file) == version_of(file)
            except OSError:  # which is told when it is to be heard
                return False

        return [file for file in files if not is_known(file)]

    def append(self, row: dict, state: States) -> None:
        """
        Take a segment; a part that is full is written.

        Args:
            row: Columns of `SCHEMA` but `row`.
            state: State after the segment, (1, …).
        """
        state = round_states(state, getattr(torch, self.settings.precision))
        self.waiting.append(({**row, "row": len(self.waiting)}, state))
        self.bytes += size_of(state)
        if len(self.waiting) >= PART_ROWS or self.bytes >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as a part."""
        if not self.waiting:
            return
        rows, states = zip(*self.waiting, strict=True)
        table = pa.Table.from_pylist(rows, SCHEMA).to_pandas()
        self.write_part(table, {name: torch.cat([state[name] for state in states]) for name in states[0]})
        self.waiting, self.bytes = [], 0

    def write_part(self, table: pd.DataFrame, states: States) -> None:
        """Write a new part, its table last."""
        file = self.folder / f"part-{self.number:05}.parquet"
        self.keep_number(self.number + 1)
        tensors = {name: tensor.contiguous() for name, tensor in states.items()}
        with write_file_whole(file.with_suffix(".safetensors")) as temporary:
            temporary.write_bytes(save(tensors, metadata={"weights": self.settings.weights}))
        write_table(file, table)

    def fail(self, failed: dict[str, str]) -> None:
        """Write why which files could not be read in this run."""
        lines = [json.dumps({"audio": name, "error": why}, ensure_ascii=False) + "\n" for name, why in failed.items()]
        write_text_whole(self.folder / FAILED, "".join(lines))

    def prune(self, gone: Collection[str]) -> None:
        """Take out what no longer counts, and the files `gone`; a part of which little is left is written anew."""
        for file in self.damaged:
            remove_part(file)
        parts = [read_part(file, self.settings.weights) for file in part_files(self.folder)]
        alive = join_parts(parts)
        self.table = alive = alive[~alive["audio"].isin(gone)]
        for table in parts:
            name = table["part"].iloc[0]
            kept = alive[alive["part"] == name].drop(columns="part").reset_index(drop=True)
            if len(kept) == len(table):
                continue
            file = self.folder / f"{name}.parquet"
            states = file.with_suffix(".safetensors")
            if len(kept) >= SPARSE * (table["row"].max() + 1):
                write_table(file, kept)
                continue
            if len(kept):
                self.write_part(kept.assign(row=range(len(kept))), read_states(states, kept["row"].to_numpy()))
            remove_part(file)


def version_of(file: str) -> tuple[int, int]:
    """Return a file's size in bytes and its time of change in nanoseconds; an OSError says why it cannot be seen."""
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def refuse_changes(folder: Path, old: IndexSettings, new: IndexSettings) -> None:
    """Refuse to add to an index what could not be compared with what it holds."""
    old.refuse_other_model(folder, new.weights)
    for name in ("prompt", "num_beams", "precision"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            option = f"--{name.replace('_', '-')}"
            made = f"with {option} {before!r}" if before else f"without {option}"
            raise ValueError(f"{folder}: was made {made}; give the same, or choose or make another folder")


def write_table(file: Path, table: pd.DataFrame) -> None:
    """Write the table of a part whole."""
    with write_file_whole(file) as temporary:
        pq.write_table(pa.Table.from_pandas(table, SCHEMA, preserve_index=False), temporary)


def remove_part(file: Path) -> None:
    """Delete a part, its table first: what is without a table is not there."""
    file.unlink(missing_ok=True)
    file.with_suffix(".safetensors").unlink(missing_ok=True)

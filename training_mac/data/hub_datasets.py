"""Hugging Face datasets, local or on the Hub, read as clips whose audio stays there until it is asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Audio, Dataset, DatasetDict, config, load_dataset, load_from_disk
from datasets.fingerprint import Hasher

from processing_mac.dataset_mac import MANIFESTS, Clip, iter_clips
from training_mac.recipe.data_fields import Source


IN_DATASET = object()  # stands for the audio of a row while its texts are read


@dataclass(frozen=True, eq=False, slots=True)
class StoredAudio:
    """
    The audio of one row of a dataset, read when it is asked for.

    Args:
        dataset: Dataset with an `Audio(decode=False)` column.
        column: Name of that column.
        row: Index of the row, from 0.
        place: Name of the row in errors.
    """

    dataset: Dataset
    column: str
    row: int
    place: str

    def __str__(self) -> str:
        return self.place

    @property
    def identity(self) -> tuple[str, int, int]:
        """Give what tells this audio from any other, as path, size and time do for a file."""
        return f"{self.dataset._fingerprint}/{self.column}", self.row, 0

    def read_bytes(self) -> bytes:
        """Read the encoded file."""
        cell = self.dataset[self.row][self.column]
        if cell and cell["bytes"] is not None:
            return cell["bytes"]
        if cell and cell["path"] and Path(cell["path"]).is_file():
            return Path(cell["path"]).read_bytes()
        raise ValueError(f"{self.place}: has neither bytes nor a file ({cell and cell['path']}).")


def read_dataset(source: Source, problems: list[str]) -> Iterator[tuple[int, Clip]]:
    """Read a dataset; its column `audio` is an `Audio` feature or holds paths, a caption is a text or a list."""
    dataset = open_dataset(source)
    column = source.columns.get("audio", "audio")
    texts: Any = dataset
    if isinstance(dataset.features.get(column), Audio):
        texts = texts.remove_columns([column])
        texts = texts if texts.column_names else [{}] * len(dataset)  # without columns there would be no rows either
        texts = ({**cells, column: IN_DATASET} for cells in texts)
    rows = enumerate(texts, start=1)
    yield from iter_clips(source.path, rows, Path(source.audio_root or ""), source.columns, problems, unit="row")


def stored_audio(source: Source) -> Callable[[int], StoredAudio] | None:
    """Give a function from a row, counted from 0, to its audio if the dataset keeps that; None if it holds paths."""
    dataset = open_dataset(source)
    column = source.columns.get("audio", "audio")
    if not isinstance(dataset.features.get(column), Audio):
        return None
    encoded = dataset.cast_column(column, Audio(decode=False)).select_columns([column])
    return lambda row: StoredAudio(encoded, column, row, f"{source.path}, row {row + 1}")


def cache_of(folder: Path) -> str | None:
    """
    Choose where `datasets` keeps what it makes of a local folder: a place of its own for each state of the folder.

    Without this `datasets` tells folders that name configurations apart by their last names alone, and would give the
    data of another folder.
    """
    if not folder.is_dir():
        return None
    files = sorted(file for file in folder.resolve().rglob("*") if file.is_file())
    state = Hasher.hash([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    return str(Path(config.HF_DATASETS_CACHE) / "folders" / state)


def open_dataset(source: Source) -> Dataset:
    """Open what `save_to_disk` wrote, a data file, or what `load_dataset` finds in a folder or on the Hub."""
    path = Path(source.path)
    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            if source.name:
                raise ValueError(f"a folder of `save_to_disk` has no configurations, such as {source.name!r}")
            opened: Any = load_from_disk(str(path))
        elif path.suffix in MANIFESTS:
            kind = {".jsonl": "json"}.get(path.suffix, path.suffix[1:])
            opened = load_dataset(kind, data_files=str(path))
        else:
            opened = load_dataset(source.path, source.name, cache_dir=cache_of(path))
    except Exception as error:  # parsers and clients raise errors of any class
        raise ValueError(f"{source.path}: cannot be opened as a dataset ({error}).") from error
    if not isinstance(opened, DatasetDict):
        return opened
    split = source.split or (next(iter(opened)) if len(opened) == 1 else None)
    if split is None:
        raise ValueError(
            f"{source.path}: it has {', '.join(opened)}; say which is meant: `split: {list(opened)[-1]}`."
        )
    if split not in opened:
        raise ValueError(f"{source.path}: no split {split!r}; it has {', '.join(opened)}.")
    return opened[split]

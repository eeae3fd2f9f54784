"""Hugging Face datasets, local or from the Hub, as clips: their audio stays where it is until it is asked for."""

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
        dataset: With an `Audio(decode=False)` column.
        column: Its name.
        row: From 0.
        place: What errors call it.
    """

    dataset: Dataset
    column: str
    row: int
    place: str

    def __str__(self) -> str:
        return self.place

    @property
    def identity(self) -> tuple[str, int, int]:
        """What tells it from any other, as path, size and time do for a file."""
        return f"{self.dataset._fingerprint}/{self.column}", self.row, 0

    def read_bytes(self) -> bytes:
        """The encoded file."""
        cell = self.dataset[self.row][self.column]
        if cell and cell["bytes"] is not None:
            return cell["bytes"]
        if cell and cell["path"] and Path(cell["path"]).is_file():
            return Path(cell["path"]).read_bytes()
        raise ValueError(f"{self.place}: has neither bytes nor a file ({cell and cell['path']}).")


def read_dataset(source: Source, problems: list[str]) -> Iterator[tuple[int, Clip]]:
    """A dataset: its column `audio` is an `Audio` feature or holds paths; captions are texts or lists of them."""
    dataset = open_dataset(source)
    column = source.columns.get("audio", "audio")
    texts: Any = dataset
    if isinstance(dataset.features.get(column), Audio):
        texts = texts.remove_columns([column])
        texts = texts if texts.column_names else [{}] * len(dataset)  # without columns it would have no rows either
        texts = ({**cells, column: IN_DATASET} for cells in texts)
    rows = enumerate(texts, start=1)
    yield from iter_clips(source.path, rows, Path(source.audio_root or ""), source.columns, problems, unit="row")


def stored_audio(source: Source) -> Callable[[int], StoredAudio] | None:
    """What gives the audio of a row, from 0, where the dataset keeps it itself; None where it holds paths."""
    dataset = open_dataset(source)
    column = source.columns.get("audio", "audio")
    if not isinstance(dataset.features.get(column), Audio):
        return None
    encoded = dataset.cast_column(column, Audio(decode=False)).select_columns([column])
    return lambda row: StoredAudio(encoded, column, row, f"{source.path}, row {row + 1}")


def cache_of(folder: Path) -> str | None:
    """
    Where `datasets` keeps what it makes of a local folder: a place for each state of it.

    By itself it tells folders that name configurations apart by their last names alone, and would hand out another's.
    """
    if not folder.is_dir():
        return None
    files = sorted(file for file in folder.resolve().rglob("*") if file.is_file())
    state = Hasher.hash([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    return str(Path(config.HF_DATASETS_CACHE) / "folders" / state)


def open_dataset(source: Source) -> Dataset:
    """What `save_to_disk` wrote, a data file, or whatever `load_dataset` finds in a folder or on the Hub."""
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
    except Exception as error:  # parsers and clients raise whatever they like
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

"""Raw log-mels of recordings: computed when they are asked for, or read from a cache on disk."""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock
from torch.utils.data import DataLoader
from tqdm import tqdm

from processing_mac.decoding_mac import stated_seconds
from processing_mac.whole_files_mac import write_file_whole


logger = logging.getLogger(__name__)

Identity = tuple[str, int, int]  # a file's path, size and time of change
Place = tuple[str, int]  # path of a file of the cache, and a row in it
VERSION = 2  # version of the cache, to be raised when the extractor's `raw_log_mel` gives other numbers
PART = 1000  # recordings in a file of the cache: at most so many are computed again after an interruption
COLUMNS = {"path": "string", "size": "int64", "changed": "int64", "digest": "string", "frames": "int64"}


def compute_log_mel(audio: Any, extractor: Any) -> torch.Tensor:
    """
    Compute the raw log-mel of one recording, (frames, mel bins) float16, as the cache holds it, too.

    Raises:
        ValueError: The audio cannot be read.
    """
    return extractor.raw_log_mel(extractor.load(audio)[0]).half()


def identify(audio: Any) -> Identity:
    """Find, without reading a recording, the path, size and time that change when it does."""
    if not isinstance(audio, str):
        return audio.identity
    status = os.stat(audio)
    return os.path.abspath(audio), status.st_size, status.st_mtime_ns


def digest(audio: Any) -> str:
    """Compute a hash of the encoded file."""
    content = Path(audio).read_bytes() if isinstance(audio, str) else audio.read_bytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class FeatureCache:
    """
    Log-mels in memory-mapped Arrow files, in one folder for each kind of filter bank. Windows, padding and
    normalisation come after the cache, so extractors that differ in these share it.

    A log-mel belongs to the content of its file (a hash), so that renamed, moved or copied files are not computed
    again. The hash is noted with path, size and time of change, so that an unchanged file is not even read again.
    Files are written under another name and renamed when they are whole; a lock lets one process compute while the
    others wait for it.

    Args:
        folder: Folder that holds the caches of any data and settings.
        extractor: Feature extractor whose filter bank makes the log-mels.
    """

    def __init__(self, folder: str | Path, extractor: Any):
        self.extractor = extractor
        kind = "log-mel" if extractor.front_end == "kaldi" else f"{extractor.front_end}-log-mel"
        self.folder = Path(folder) / f"{kind}-v{VERSION}-{extractor.feature_size}-bins-{extractor.sampling_rate}-hz"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parts: dict[str, Dataset] = {}
        self.digests: dict[Identity, str] = {}
        self.places: dict[str, Place] = {}  # where the log-mel of a digest is
        self.frames: dict[Place, int] = {}

    def add(self, recordings: Iterable[Any]) -> None:
        """Compute the log-mels that the cache lacks; recordings that cannot be read are left out and logged."""
        with FileLock(self.folder / "lock"):
            self.open_parts()
            missing: dict[str, Any] = {}
            for audio in recordings:
                try:
                    if (identity := identify(audio)) not in self.digests:
                        self.digests[identity] = key = digest(audio)
                        if key not in self.places:
                            missing.setdefault(key, audio)
                except (OSError, ValueError) as error:  # the file is gone, or the cell of a dataset is empty
                    logger.warning("Not in the cache of features: %s", error)
            keys = list(missing)
            with tqdm(total=len(keys), desc="log-mel", unit="clip", disable=not keys) as progress:
                for start in range(0, len(keys), PART):
                    self.write_part({key: missing[key] for key in keys[start : start + PART]}, progress)
            self.open_parts()

    def open_parts(self) -> None:
        """Map the files of the cache that are new, and note which log-mels they hold."""
        for file in sorted(self.folder.glob("*.arrow")):
            if file.name in self.parts:
                continue
            part = self.parts[file.name] = Dataset.from_file(str(file))
            columns = part.select_columns(list(COLUMNS))[:]
            for row, (path, size, changed, key, frames) in enumerate(zip(*columns.values(), strict=True)):
                self.digests[path, size, changed] = key
                self.places[key] = (file.name, row)
                self.frames[file.name, row] = frames

    def write_part(self, missing: dict[str, Any], progress: tqdm) -> None:
        """Compute some log-mels, and write them to a file of their own."""
        name = hashlib.blake2b("".join(missing).encode(), digest_size=8).hexdigest()
        features = Features({**{name: Value(kind) for name, kind in COLUMNS.items()}, "log_mel": Value("binary")})
        with (
            write_file_whole(self.folder / f"{name}.arrow") as temporary,
            ArrowWriter(features=features, path=str(temporary), writer_batch_size=16) as writer,
        ):
            for (key, audio), log_mel in zip(missing.items(), self.compute(list(missing.values())), strict=True):
                progress.update()
                if isinstance(log_mel, str):
                    logger.warning("Not in the cache of features: %s", log_mel)
                    continue
                row = dict(zip(COLUMNS, (*identify(audio), key, len(log_mel)), strict=True))
                writer.write({**row, "log_mel": log_mel.numpy().tobytes()})
            writer.finalize()

    def compute(self, recordings: list[Any]) -> Iterator[torch.Tensor | str]:
        """Give log-mels, or messages why there is none, in order, on all processors if there are many recordings."""
        workers = min(os.cpu_count() or 1, len(recordings) // 50)
        rows = ComputedRows(recordings, self.extractor)
        return iter(DataLoader(rows, batch_size=None, shuffle=False, num_workers=workers))

    def find(self, audio: Any) -> Place | None:
        """Find where a recording's log-mel is; None for a recording that could not be read."""
        try:
            return self.places.get(self.digests.get(identify(audio), ""))
        except OSError:  # the file is gone
            return None

    def read(self, place: Place) -> torch.Tensor:
        """Read a log-mel from the cache: (frames, mel bins) float16."""
        part, row = place
        stored = np.frombuffer(self.parts[part][row]["log_mel"], dtype=np.float16)
        return torch.from_numpy(stored.reshape(-1, self.extractor.feature_size).copy())


class ComputedRows(torch.utils.data.Dataset):
    """The log-mels of a list of recordings, with an error's message in place of one that cannot be read."""

    def __init__(self, recordings: list[Any], extractor: Any):
        self.recordings = recordings
        self.extractor = extractor

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, row: int) -> torch.Tensor | str:
        try:
            return compute_log_mel(self.recordings[row], self.extractor)
        except ValueError as error:
            return str(error)


class LogMels(Sequence):
    """
    Raw log-mel of each recording of a list, (frames, mel bins) float16.

    Args:
        recordings: Paths of recordings, or objects that hold audio.
        extractor: Feature extractor that computes the log-mels.
        cache_folder: Folder where the log-mels are kept; None computes each when it is asked for.
    """

    def __init__(self, recordings: Sequence[Any], extractor: Any, cache_folder: str | Path | None = None):
        self.recordings = recordings
        self.extractor = extractor
        self.cache = FeatureCache(cache_folder, extractor) if cache_folder else None
        self.places: list[Place | None] = []
        if self.cache:
            self.cache.add(recordings)
            self.places = [self.cache.find(audio) for audio in recordings]

    @property
    def left_out(self) -> list[int]:
        """The rows that the cache should have, but whose recordings cannot be read."""
        return [row for row, place in enumerate(self.places) if place is None]

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if self.cache and (place := self.places[row]):
            return self.cache.read(place)
        return compute_log_mel(self.recordings[row], self.extractor)

    def num_frames(self, row: int) -> int | None:
        """Give the frames of a row as far as the cache or the file's header tells them without decoding; else None."""
        if self.cache and (place := self.places[row]):
            return self.cache.frames[place]
        return header_frames(self.recordings[row], self.extractor)


def header_frames(audio: Any, extractor: Any) -> int | None:
    """Compute the frames of a recording from the header of its file; None where that does not tell."""
    if not isinstance(audio, str):
        return None
    seconds = stated_seconds(audio)
    if seconds is None:
        return None
    return max(1, round(seconds * extractor.window_frames / extractor.window_seconds))

"""
Encodes scenes into rows of patches, the tokens of each side by side, and keeps those of many scenes on the disk.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from everyday_mixed import Scene

from modeling_mac import MacForConditionalGeneration
from processing_mac import MacFeatureExtractor
from processing_mac.audio_mac import load_waveform
from processing_mac.whole_files_mac import write_file_whole
from training_mac.examples.augmentation import change_timbre


TIMBRE_DB = 6.0  # most that the level of a scene is changed by, and the level of its lowest and highest mel bins
AT_A_TIME = 8  # windows that are encoded together
PADDING = 6  # rows of it at least, about a second, by which one can tell what it is like
HEARD_STEP, PADDING_STEP = 5, 4  # one row of so many is enough to tell what the tokens of sounds and padding are like
ENOUGH = 2000  # windows to tell that from


@dataclass(frozen=True, eq=False)
class Encoding:
    """
    What an encoder makes of a scene.

    Args:
        rows: Tokens of each row of patches side by side, of whole windows, (rows, columns * dim) float16.
        heard: Number of the rows that are no padding; the last of them may be so in part.
    """

    rows: torch.Tensor
    heard: int

    @property
    def padding(self) -> torch.Tensor:
        """The rows that are nothing but padding, (rows, columns * dim), or none if they are too few."""
        return padding_of(self.rows, self.heard)


def padding_of(rows: torch.Tensor, heard: int) -> torch.Tensor:
    """Those of the rows (rows, n) of a scene that are nothing but padding, or none if they are too few."""
    return rows[heard + 1 :] if len(rows) - heard > PADDING else rows[:0]


@torch.no_grad()
def encode_scenes(
    model: MacForConditionalGeneration, extractor: MacFeatureExtractor, scenes: Sequence[Scene], seed: Sequence[int]
) -> Iterator[Encoding]:
    """
    Encode scenes, each with a gain and a tilt of its own.

    Args:
        model: MAC whose connector is `concat`.
        extractor: Feature extractor of its windows.
        scenes: Scenes to encode.
        seed: Numbers that gains and tilts depend on, beside the number of the scene.
    """
    tower, connector = model.eval().model.audio_tower, model.model.connector
    patch = tower.config.patch_size
    for number, scene in enumerate(scenes):
        log_mel = extractor.raw_log_mel(load_waveform(str(scene.audio)))
        log_mel = change_timbre(log_mel, np.random.default_rng([*seed, number]), TIMBRE_DB, TIMBRE_DB)
        windows = extractor.to_windows(log_mel)
        tokens = torch.cat([tower(part).last_hidden_state[:, 1:] for part in windows.split(AT_A_TIME)])
        yield Encoding(connector.arrange(tokens).flatten(0, 1).half(), -(-len(log_mel) // patch))


def keep_rows(path: Path, encodings: Iterable[Encoding]) -> None:
    """Write encodings to a file of float16, and the numbers of rows beside it, which is there when all are written."""
    counts = []
    with write_file_whole(path) as temporary, open(temporary, "wb") as file:
        for encoding in encodings:
            file.write(encoding.rows.numpy().tobytes())
            counts.append((len(encoding.rows), encoding.heard))
    with write_file_whole(counts_of(path)) as temporary, open(temporary, "wb") as file:
        np.save(file, np.array(counts))


def are_kept(path: Path) -> bool:
    """Whether `keep_rows` has written to a file all that it had to write."""
    return path.is_file() and counts_of(path).is_file()


def remove_rows(path: Path) -> None:
    """Remove what `keep_rows` wrote."""
    for file in (counts_of(path), path):
        file.unlink(missing_ok=True)


def kept_rows(path: Path, width: int) -> list[Encoding]:
    """Open what `keep_rows` wrote, of rows of a width, without reading it into memory."""
    counts = np.load(counts_of(path))  # (scenes, 2)
    values = torch.from_numpy(np.memmap(path, np.float16, "c").reshape(-1, width))  # "c": torch wants to write to it
    parts = values.split(counts[:, 0].tolist())
    return [Encoding(rows, heard) for rows, heard in zip(parts, counts[:, 1].tolist(), strict=True)]


def counts_of(path: Path) -> Path:
    """Name the file of the numbers of rows beside a file of rows."""
    return path.with_suffix(".npy")


def sample_rows(encodings: Iterable[Encoding], rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Take some rows of sounds and of padding, evenly from encodings.

    Args:
        encodings: Encodings; those after the first `ENOUGH` windows are not asked for.
        rows: Number of rows in a window.

    Returns:
        The rows, (rows, columns * dim) float32, and which of them are of a sound, (rows,).

    Raises:
        ValueError: None of them is padding.
    """
    taken, heard, windows = [], [], 0
    for number, encoding in enumerate(encodings):
        sounds = encoding.rows[number % HEARD_STEP : encoding.heard : HEARD_STEP]
        padding = encoding.padding[::PADDING_STEP]
        taken += [sounds, padding]
        heard += [torch.ones(len(sounds), dtype=torch.bool), torch.zeros(len(padding), dtype=torch.bool)]
        windows += len(encoding.rows) // rows
        if windows >= ENOUGH:
            break
    if torch.cat(heard).all():
        raise ValueError(
            "No scene ends a second before its window does, so that nobody can tell what padding is like."
        )
    return torch.cat(taken).float(), torch.cat(heard)

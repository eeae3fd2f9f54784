"""
The outputs of a frozen encoder, computed once for several epochs of examples and read again in later ones.

An encoder is surer of the recordings that it has learnt from than of others. So that a language model does not come
to rely on this, a share of another example may be mixed into each (as in manifold mixup, arXiv 1806.05236, but the
caption stays that of the greater part).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from modeling_mac import EatModel


ENCODER_BATCH = 16  # examples, and windows of these, that are encoded at a time


class EncodedExamples(Dataset):
    """
    Examples with `encoder_hidden_states` (windows, 1 + patches, dim) in place of `input_features`.

    Args:
        examples: Training set that is encoded epoch after epoch.
        encoder: Frozen encoder that makes the hidden states.
        variants: Number of epochs to encode; epoch e of the training reads variant e modulo `variants`.
        file: Path where this process keeps the float16 encodings while it needs them.
        mix: Greatest share, from 0 to 1, of another example of the same epoch that is mixed into each.
        seed: Seed of the mixing, used together with epoch and row.
        device: Device that the encoder runs on here; it then goes back to where it was.

    Raises:
        OSError: There is no room for the file.
    """

    def __init__(
        self,
        examples: Any,
        encoder: EatModel,
        variants: int,
        file: Path,
        mix: float = 0.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        self.examples, self.variants, self.epoch = examples, variants, 0
        self.mix, self.seed = mix, seed
        rows, columns = encoder.config.grid
        store = GrowingStore(file, (1 + rows * columns, encoder.config.hidden_size))
        store.reserve(variants * len(examples))  # one window for each example; longer examples make the store grow
        self.starts = [0]  # index of the first window of each example, and the end of the last one
        self.others: list[dict[str, Any]] = []
        home, was_training = encoder.device, encoder.training
        encoder.eval().to(device)
        for variant in tqdm(range(variants), desc="encoding", unit="epoch"):
            examples.set_epoch(variant)
            for first in range(0, len(examples), ENCODER_BATCH):
                batch = range(first, min(first + ENCODER_BATCH, len(examples)))
                self.encode([examples[row] for row in batch], encoder, store)
        self.encoded = store.rows
        encoder.train(was_training).to(home)

    @torch.no_grad()
    def encode(self, batch: Sequence[dict[str, Any]], encoder: EatModel, store: "GrowingStore") -> None:
        """Encode a few examples and append them to the store."""
        for example in batch:
            self.starts.append(self.starts[-1] + len(example["input_features"]))
            self.others.append({name: example[name] for name in example if name != "input_features"})
        features = torch.cat([example["input_features"] for example in batch])
        store.reserve(self.starts[-1])
        first = self.starts[-1] - len(features)
        for place, windows in enumerate(features.split(ENCODER_BATCH)):
            states = encoder(windows.to(encoder.device)).last_hidden_state
            begin = first + place * ENCODER_BATCH
            store.rows[begin : begin + len(windows)] = states.cpu().half().numpy()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer's data loader calls this at the start of each."""
        self.epoch = epoch

    @property
    def lengths(self) -> list[int]:
        """The tokens of each example as the training set estimates them, for grouping by length."""
        return self.examples.lengths

    @property
    def num_skipped(self) -> int:
        """The number of recordings that could not be read."""
        return self.examples.num_skipped

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, row: int) -> dict[str, Any]:
        variant = self.epoch % self.variants * len(self)
        states = self.states(variant + row)
        if self.mix:
            rng = np.random.default_rng([self.seed, self.epoch, row])
            other = self.states(variant + int(rng.integers(len(self))))[: len(states)]
            mixed = states[: len(other)].lerp(other, float(rng.uniform(0, self.mix)))
            states = torch.cat([mixed, states[len(other) :]])
        return {"encoder_hidden_states": states, **self.others[variant + row]}

    def states(self, place: int) -> torch.Tensor:
        """Give the hidden states of an example: (windows, 1 + patches, dim)."""
        return torch.from_numpy(self.encoded[self.starts[place] : self.starts[place + 1]]).float()


class GrowingStore:
    """
    float16 numbers in a file without a name, which is gone when the process ends, however it ends.

    Room is reserved before it is written to, since a mapping that meets a full disk later kills the process.

    Args:
        file: Path that the file has until it is opened.
        row_shape: Shape of one stored row.

    Attributes:
        rows: The stored numbers, (rows, *row_shape).
    """

    def __init__(self, file: Path, row_shape: tuple[int, ...]):
        self.name, self.row_shape = file, row_shape
        file.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(file, "w+b")  # noqa: SIM115 the file stays open as long as the store lives
        self.rows = np.zeros((0, *row_shape), np.float16)

    def reserve(self, count: int) -> None:
        """
        Make room for `count` rows in all, or for half as many again as before if that is more.

        Raises:
            OSError: The disk has no room.
        """
        if count <= len(self.rows):
            return
        count = max(count, len(self.rows) * 3 // 2)
        shape = (count, *self.row_shape)
        size = int(np.prod(shape)) * np.dtype(np.float16).itemsize
        try:
            if hasattr(os, "posix_fallocate"):  # macOS does not have it
                os.posix_fallocate(self.stream.fileno(), 0, size)
            self.rows = np.memmap(self.stream, np.float16, "r+", shape=shape)
        except OSError as error:
            raise OSError(
                f"{self.name}: no room for {size / 1e6:,.1f} MB of encodings ({error}). Make room, or lower "
                "`cached_epochs`."
            ) from error
        finally:
            self.name.unlink(missing_ok=True)

"""
The outputs of a frozen encoder, computed once for several epochs of examples and read again in later ones.

An encoder is surer of the recordings that it has learnt from than of others. So that a language model does not come
to rely on that, a share of another example may be mixed into each (as in manifold mixup, arXiv 1806.05236, but the
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


ENCODER_BATCH = 16


class EncodedExamples(Dataset):
    """
    Examples with `encoder_hidden_states` (windows, 1 + patches, dim) in place of `input_features`.

    Args:
        examples: A training set, encoded epoch after epoch.
        encoder: The frozen encoder.
        variants: Epochs to encode; epoch e of the training reads variant e modulo `variants`.
        file: Where this process keeps the float16 encodings while it needs them.
        mix: Most of another example of the same epoch that is mixed into each, as a share of the two.
        seed: Of the mixing, with epoch and row.
        device: What encodes; the encoder then goes back to where it was.

    Raises:
        OSError: no room for the file.
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
        store.reserve(variants * len(examples))  # a window each; longer ones make it grow
        self.starts = [0]  # the first window of each example, and the end of the last one
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
        """Append a few examples."""
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
        """Called by the Trainer's data loader at the start of an epoch."""
        self.epoch = epoch

    @property
    def lengths(self) -> list[int]:
        """For grouping, as the training set estimates them."""
        return self.examples.lengths

    @property
    def num_skipped(self) -> int:
        """Recordings that could not be read."""
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
        """(windows, 1 + patches, dim)"""
        return torch.from_numpy(self.encoded[self.starts[place] : self.starts[place + 1]]).float()


class GrowingStore:
    """
    float16 numbers in a file that nobody else sees: it is gone when the process ends, however it ends.

    Its room is reserved before it is written to, since a mapping that meets a full disk later kills the process.

    Args:
        file: Its name, for a moment.
        row_shape: Of what is stored one by one.

    Attributes:
        rows: What is stored, (rows, *row_shape).
    """

    def __init__(self, file: Path, row_shape: tuple[int, ...]):
        self.name, self.row_shape = file, row_shape
        file.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(file, "w+b")  # noqa: SIM115 as long as the store lives
        self.rows = np.zeros((0, *row_shape), np.float16)

    def reserve(self, count: int) -> None:
        """
        Make room for so many rows, and for half as many more whenever there was too little.

        Raises:
            OSError: there is none.
        """
        if count <= len(self.rows):
            return
        count = max(count, len(self.rows) * 3 // 2)
        shape = (count, *self.row_shape)
        size = int(np.prod(shape)) * np.dtype(np.float16).itemsize
        try:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(self.stream.fileno(), 0, size)
            self.rows = np.memmap(self.stream, np.float16, "r+", shape=shape)
        except OSError as error:
            raise OSError(
                f"{self.name}: no room for {size / 1e6:,.1f} MB of encodings ({error}). Make room, or lower "
                "`cached_epochs`."
            ) from error
        finally:
            self.name.unlink(missing_ok=True)

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
from training_mac.data.data_error import DataError


ENCODER_BATCH = 16


class EncodedExamples(Dataset):
    """
    Examples of one window with `encoder_hidden_states` (1, 1 + patches, dim) in place of `input_features`.

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
        ValueError: an example of several windows.
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
        shape = (variants * len(examples), 1 + rows * columns, encoder.config.hidden_size)
        self.encoded = map_file(file, shape)
        self.others: list[dict[str, Any]] = []
        home, was_training = encoder.device, encoder.training
        encoder.eval().to(device)
        for variant in tqdm(range(variants), desc="encoding", unit="epoch"):
            examples.set_epoch(variant)
            for first in range(0, len(examples), ENCODER_BATCH):
                batch = range(first, min(first + ENCODER_BATCH, len(examples)))
                self.encode([examples[row] for row in batch], encoder)
        encoder.train(was_training).to(home)

    @torch.no_grad()
    def encode(self, batch: Sequence[dict[str, Any]], encoder: EatModel) -> None:
        """Append a few examples."""
        features = torch.cat([example["input_features"] for example in batch])
        if len(features) != len(batch):
            raise DataError("`cached_epochs` needs clips of one window each; some of these are longer.")
        states = encoder(features.to(encoder.device)).last_hidden_state
        place = len(self.others)
        self.encoded[place : place + len(batch)] = states.cpu().half().numpy()
        self.others += [{name: example[name] for name in example if name != "input_features"} for example in batch]

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
            states = states.lerp(self.states(variant + int(rng.integers(len(self)))), float(rng.uniform(0, self.mix)))
        return {"encoder_hidden_states": states, **self.others[variant + row]}

    def states(self, place: int) -> torch.Tensor:
        """(1, 1 + patches, dim)"""
        return torch.from_numpy(self.encoded[place : place + 1]).float()


def map_file(file: Path, shape: tuple[int, ...]) -> np.memmap:
    """
    float16 numbers in a file that nobody else sees: it is gone when the process ends, however it ends.

    Its room is reserved before it is written to, since a mapping that meets a full disk later kills the process.
    """
    size = int(np.prod(shape)) * np.dtype(np.float16).itemsize
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(file, "w+b") as stream:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(stream.fileno(), 0, size)
            return np.memmap(stream, np.float16, "r+", shape=shape)
    except OSError as error:
        raise OSError(
            f"{file}: no room for {size / 1e6:,.1f} MB of encodings ({error}). Make room, or lower `cached_epochs`."
        ) from error
    finally:
        file.unlink(missing_ok=True)

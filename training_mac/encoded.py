"""The outputs of a frozen encoder, computed once for several epochs of examples and read again in later ones."""

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
    Examples of one window with `encoder_hidden_states` (1, 1 + patches, dim) in place of `input_features`.

    Args:
        examples: A training set, encoded epoch after epoch.
        encoder: The frozen encoder.
        variants: Epochs to encode; epoch e of the training reads variant e modulo `variants`.
        file: Where this process keeps the float16 encodings while it needs them.
    """

    def __init__(self, examples: Any, encoder: EatModel, variants: int, file: Path):
        self.num_rows, self.variants, self.epoch = len(examples), variants, 0
        rows, columns = encoder.config.grid
        shape = (variants * len(examples), 1 + rows * columns, encoder.config.hidden_size)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.encoded = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
        file.unlink()  # the mapping keeps the data until the process ends, however it ends
        self.others: list[dict[str, Any]] = []
        for variant in tqdm(range(variants), desc="encoding", unit="epoch"):
            examples.set_epoch(variant)
            for first in range(0, len(examples), ENCODER_BATCH):
                batch = range(first, min(first + ENCODER_BATCH, len(examples)))
                self.encode([examples[row] for row in batch], encoder)

    @torch.no_grad()
    def encode(self, batch: Sequence[dict[str, Any]], encoder: EatModel) -> None:
        """
        Append a few examples.

        Raises:
            ValueError: one has several windows.
        """
        features = torch.cat([example["input_features"] for example in batch])
        if len(features) != len(batch):
            raise ValueError("`cached_epochs` needs clips of one window each; some of these are longer.")
        was_training = encoder.training
        states = encoder.eval()(features.to(encoder.device)).last_hidden_state
        encoder.train(was_training)
        place = len(self.others)
        self.encoded[place : place + len(batch)] = states.cpu().half().numpy()
        self.others += [{name: example[name] for name in example if name != "input_features"} for example in batch]

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader at the start of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, row: int) -> dict[str, Any]:
        place = self.epoch % self.variants * self.num_rows + row
        return {
            "encoder_hidden_states": torch.from_numpy(self.encoded[place : place + 1]).float(),
            **self.others[place],
        }

"""The outputs of a frozen encoder, computed once for several epochs of scenes and read again in later ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from modeling_mac import EatModel
from training_mac.scenes import SceneDataset


ENCODER_BATCH = 16


class EncodedScenes(Dataset):
    """
    Scenes with `encoder_hidden_states` (1, 1 + patches, dim) in place of `input_features`.

    Args:
        scenes: What to encode, epoch after epoch.
        encoder: The frozen encoder.
        variants: Epochs to encode; epoch e of the training reads variant e modulo `variants`.
        file: Where the float16 encodings are kept while they are needed.
    """

    def __init__(self, scenes: SceneDataset, encoder: EatModel, variants: int, file: Path):
        self.num_rows, self.variants, self.epoch = len(scenes), variants, 0
        rows, columns = encoder.config.grid
        shape = (variants * len(scenes), 1 + rows * columns, encoder.config.hidden_size)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.encoded = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
        self.captions: list[str] = []
        for variant in tqdm(range(variants), desc="encoding", unit="epoch"):
            scenes.set_epoch(variant)
            self.encode([scenes[row] for row in range(len(scenes))], encoder)
        file.unlink()  # the mapping keeps the data until the process ends

    @torch.no_grad()
    def encode(self, examples: Sequence[dict[str, Any]], encoder: EatModel) -> None:
        """Append the encodings and captions of these scenes."""
        was_training = encoder.training
        encoder.eval()
        for start in range(0, len(examples), ENCODER_BATCH):
            batch = examples[start : start + ENCODER_BATCH]
            features = torch.cat([example["input_features"] for example in batch])
            states = encoder(features.to(encoder.device)).last_hidden_state
            place = len(self.captions)
            self.encoded[place : place + len(batch)] = states.cpu().half().numpy()
            self.captions += [example["caption"] for example in batch]
        encoder.train(was_training)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader at the start of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, row: int) -> dict[str, Any]:
        place = self.epoch % self.variants * self.num_rows + row
        return {
            "encoder_hidden_states": torch.from_numpy(self.encoded[place : place + 1]).float(),
            "caption": self.captions[place],
        }

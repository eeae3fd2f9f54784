"""The order of an epoch, made from seed and epoch alone, so that a resume or more processes do not change it."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class EpochSampler(Sampler[int]):
    """
    Gives the rows of a data set in random order, those of similar length together if lengths are given.

    Args:
        size: Number of rows of the data set.
        seed: Seed of every epoch's order.
        lengths: Length of each row, in any unit.
        batch_size: Number of rows of a step on all processes, by which rows are grouped.
    """

    def __init__(self, size: int, seed: int, lengths: Sequence[int] | None = None, batch_size: int = 1):
        self.size = size
        self.seed = seed
        self.lengths = lengths
        self.batch_size = batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        if self.lengths is None:
            return iter(torch.randperm(self.size, generator=generator).tolist())
        return iter(get_length_grouped_indices(list(self.lengths), self.batch_size, generator=generator))

"""
Scenes without end: planned in processes beside the training, rendered on its device.

Every batch has a number, and all chance in it comes from that. So a training that was stopped goes on as if it had not
been, and needs to remember no more than how far it was.
"""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from everyday_planning import PATCH, Plan, Planner
from everyday_rendering import BatchedFeatures, Renderer
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class Batch(NamedTuple):
    """
    Scenes on the device.

    Args:
        waves: Samples at 16 kHz, (windows, samples).
        windows: Normalised log-mels, (windows, frames, mel bins).
        frames: Number of frames that are no padding, (windows,).
        heard: Which rows of patches are no padding, (windows, rows).
        spans, labels, known: Fields of the `Plan`.
    """

    waves: torch.Tensor
    windows: torch.Tensor
    frames: torch.Tensor
    heard: torch.Tensor
    spans: torch.Tensor
    labels: torch.Tensor
    known: torch.Tensor


class Plans(IterableDataset):
    """Plans of one purpose from the `first` on, each of a seed of its own, whichever process makes it."""

    def __init__(self, planner: Planner, seeds: tuple[int, int], first: int):
        self.planner, self.seeds, self.first = planner, seeds, first

    def __iter__(self) -> Iterator[Plan]:
        for number in numbers(self.first):
            yield self.planner.plan(np.random.default_rng([*self.seeds, number]))


class Scenes:
    """
    Draws scenes.

    Args:
        planner: Plans them, in `workers` processes beside this one.
        renderer: Renders them, on its device.
        features: Makes log-mels of them.
        seed: Of every choice.
        workers: Number of processes; 0 for none beside this one.
    """

    def __init__(self, planner: Planner, renderer: Renderer, features: BatchedFeatures, seed: int, workers: int):
        self.planner, self.renderer, self.features = planner, renderer, features
        self.rows, self.seed, self.workers = planner.samples // PATCH, seed, workers

    def draw(self, purpose: int, first: int = 0) -> Iterator[Batch]:
        """
        Draw batches of a purpose from the `first` on.

        Each batch seeds torch by its number, so that what is drawn for and after it is the same in a run that was
        stopped in between.
        """
        plans = Plans(self.planner, (self.seed, purpose), first)
        ahead = 4 if self.workers else None
        loader = DataLoader(plans, batch_size=None, num_workers=self.workers, prefetch_factor=ahead)
        for number, plan in enumerate(loader, start=first):
            seed_torch(self.seed, purpose, number)
            yield self.render(plan)

    def render(self, plan: Plan) -> Batch:
        """Render a plan, and make log-mels of it."""
        waves = self.renderer(plan)
        device = waves.device
        windows, frames = self.features(waves, plan.lengths.to(device))
        patch = windows.shape[1] // self.rows  # frames
        heard = torch.arange(self.rows, device=device) < (frames / patch).ceil().unsqueeze(1)
        return Batch(waves, windows, frames, heard, *(one.to(device) for one in (plan.spans, plan.labels, plan.known)))


def numbers(first: int) -> Iterator[int]:
    """Give the numbers of the batches that this process makes, from the `first` of all on."""
    worker = get_worker_info()
    place, step = (worker.id, worker.num_workers) if worker else (0, 1)
    return count(first + place, step)


def seed_torch(*seeds: int) -> None:
    """Seed torch by any numbers from 0 on."""
    state = np.random.SeedSequence(seeds).generate_state(2)
    torch.manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)

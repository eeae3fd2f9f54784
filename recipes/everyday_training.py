"""What trainings of an encoder have in common: checks, the course of the rate, the average of the weights."""

import argparse
import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn


def check_training(options: argparse.Namespace, positive: Sequence[str]) -> None:
    """
    Refuse what cannot be, before anything is read.

    Args:
        options: Options of the command, `workers`, `seed`, `device` and `output` among them.
        positive: Names of those that must be above 0, or None.

    Raises:
        ValueError: A value is impossible, or `--output` is finished or no folder.
    """
    for name in positive:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name} {value}: expected more than 0")
    if options.workers < 0 or options.seed < 0:
        raise ValueError(f"--workers {options.workers} --seed {options.seed}: expected 0 or more")
    try:
        torch.zeros(1, device=options.device)
    except (RuntimeError, AssertionError) as error:  # by a name that is none, and by a torch without CUDA
        raise ValueError(f"--device {options.device}: {str(error).splitlines()[0]}") from error
    if options.output.exists() and not options.output.is_dir():
        raise ValueError(f"{options.output} is no folder: name another --output")
    if (options.output / "config.json").is_file() and not (options.output / "state.pt").is_file():
        raise ValueError(f"{options.output} is finished: name another --output")


def part_weights(tower: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Part an encoder's weights into matrices, which decay, and others, which do not."""
    named = list(tower.named_parameters())
    matrices = [one for name, one in named if one.ndim > 1 and "cls_token" not in name]
    vectors = [one for name, one in named if one.ndim == 1 or "cls_token" in name]
    return matrices, vectors


def schedule(step: int, share: float, warmup: int, flat: float, last: float) -> float:
    """
    Give the share of the rate: a warm-up, then flat, then a cosine.

    Args:
        step: Number of steps done.
        share: Share of the training that is over.
        warmup: Steps until the rate is reached.
        flat: Share of the training with a flat rate.
        last: Share of the rate that is left at the end.
    """
    decline = 0.5 + 0.5 * math.cos(math.pi * max(share - flat, 0) / (1 - flat))
    return min(1, (step + 1) / warmup) * (last + (1 - last) * decline)


@torch.no_grad()
def follow(average: Iterable[nn.Parameter], learner: Iterable[nn.Parameter], step: int, steady: float) -> None:
    """Move an average of weights towards those of now, so that a share `steady` of it stays; less at first."""
    torch._foreach_lerp_(list(average), list(learner), 1 - min(steady, (step + 2) / (step + 11)))

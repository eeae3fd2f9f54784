"""A guard that keeps steps without a finite gradient from changing weights, and stops a run in which they repeat."""

import math
from collections.abc import Sequence

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn


class NanGuard:
    """
    Checks the gradients of every step before the optimizer uses them.

    Args:
        max_steps: Number of bad steps in a row that stop the run.
    """

    def __init__(self, max_steps: int):
        self.max_steps = max_steps
        self.bad_steps = 0
        self.files: list[str] = []
        self.suspects: list[str] = []
        self.lost = False  # whether a loss of this step was not finite

    def observe(self, loss: torch.Tensor, files: Sequence[str]) -> None:
        """Remember the files of a batch of this step, separately if its loss is not finite."""
        self.files += files
        if not torch.isfinite(loss):
            self.suspects += files
            self.lost = True

    def check(
        self, model: nn.Module, grad_norm: float | torch.Tensor, can_skip: bool = True, scaled: bool = False
    ) -> None:
        """
        Drop the gradients of a bad step; all processes call this, and see the same norm.

        Args:
            model: Model whose gradients are dropped.
            grad_norm: Norm of all gradients of the step.
            can_skip: Whether the optimizer passes over parameters without a gradient.
            scaled: Whether the loss is multiplied by a scaler that can still go lower. Gradients that overflow while
                all losses are finite are then its ordinary search for a scale, and it skips the step by itself.

        Raises:
            FloatingPointError: Too many steps in a row were bad, or one cannot be skipped; it names the files.
        """
        if math.isfinite(grad_norm):
            self.bad_steps = 0
        elif not scaled or any(gather_object([self.lost])):
            self.bad_steps += 1
            model.zero_grad(set_to_none=True)  # the optimizer passes over parameters without a gradient
            files = gather_object(self.suspects) or gather_object(self.files)
            if self.bad_steps >= self.max_steps or not can_skip:
                raise FloatingPointError(
                    f"Loss or gradient was not finite for {self.bad_steps} steps in a row; the last one learnt from: "
                    f"{', '.join(files)}. No weight was changed by these steps. Listen to the files, lower the "
                    "learning rate, in a run with another `output_dir`, or raise `max_nan_steps`."
                )
            PartialState().print(f"Left out a step without a finite gradient; it learnt from: {', '.join(files)}.")
        self.files, self.suspects, self.lost = [], [], False

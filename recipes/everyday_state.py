"""
The state of a training that may be stopped, kept in one file from which the same command goes on.

`hear_everyday.py`, `tell_everyday.py` and `harden_everyday.py` use it.
"""

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from processing_mac.whole_files_mac import write_file_whole


def save_state(path: Path, state: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write a state and the settings that it holds for as one file that is whole or not there."""
    with write_file_whole(path) as temporary:
        torch.save({**state, "settings": dict(settings)}, temporary)


def load_parts(path: Path, parts: tuple[str, ...], device: torch.device) -> dict[str, Any]:
    """
    Load parts, by their names, of a file of this command.

    Raises:
        ValueError: The file cannot be read, or has not all of them.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        return {name: state[name] for name in parts}
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as a state of this command; remove it to begin anew.") from error


def load_state(
    path: Path, parts: tuple[str, ...], settings: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """
    Load what `save_state` wrote.

    Args:
        path: File of the state.
        parts: Names of all that the state consists of.
        settings: Values of options, by their names as they are typed, that must be those of the state.
        device: Device that tensors are loaded on.

    Raises:
        ValueError: The file is no state of a run with these parts and settings.
    """
    found = load_parts(path, (*parts, "settings"), device)
    there = found.pop("settings")
    if other := [name for name in settings if there.get(name) != settings[name]]:
        here, before = settings[other[0]], there.get(other[0])
        raise ValueError(f"{path} is of a run with {other[0]} {before}, not {here}; remove it to begin anew.")
    return found


@dataclass(kw_only=True)
class AveragedRun:
    """
    A training of an encoder with a moving average of its weights, and how far it is.

    Subclasses name in `learnt` the fields that have a `state_dict`, and in `counted` the others that are kept.

    Args:
        optimizer: Optimizer of what is trained.
        settings: What must not change when the run goes on.
        device: Where it is trained.
        step: Number of steps done.
        seconds: How long they took.
    """

    learnt: ClassVar[tuple[str, ...]]
    counted: ClassVar[tuple[str, ...]] = ("step", "seconds")

    optimizer: torch.optim.Optimizer
    settings: dict[str, Any]
    device: torch.device
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write all of it as one file that is whole or not there."""
        state = {name: getattr(self, name).state_dict() for name in self.learnt}
        save_state(path, state | {name: getattr(self, name) for name in self.counted}, self.settings)

    def load(self, path: Path) -> None:
        """
        Go on from what `save` wrote.

        Raises:
            ValueError: The file is no state of a run with these settings.
        """
        state = load_state(path, (*self.learnt, *self.counted), self.settings, self.device)
        for name in self.learnt:
            getattr(self, name).load_state_dict(state[name])
        for name in self.counted:
            setattr(self, name, state[name])


def finite(loss: torch.Tensor, step: int) -> float:
    """
    Give the loss as a number.

    Raises:
        ValueError: It is none.
    """
    if not math.isfinite(loss.item()):
        raise ValueError(f"The loss is no number at step {step}: try a lower --rate.")
    return loss.item()

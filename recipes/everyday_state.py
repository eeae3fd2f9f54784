"""
The state of a training that may be stopped, kept in one file from which the same command goes on.

`hear_everyday.py` and `tell_everyday.py` use it.
"""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def finite(loss: torch.Tensor, step: int) -> float:
    """
    Give the loss as a number.

    Raises:
        ValueError: It is none.
    """
    if not math.isfinite(loss.item()):
        raise ValueError(f"The loss is no number at step {step}: try a lower --rate.")
    return loss.item()

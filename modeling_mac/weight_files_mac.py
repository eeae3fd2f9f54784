"""
Reads the config.json and the tensors of a pretrained checkpoint, which is a local file, a folder or a Hub id.

No code of the checkpoint runs. Weights that do not fit a model are refused, and none is left out silently.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel


WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pt")
STANDARD_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# Training programs save more than a model: fairseq puts the weights under "model", others under "state_dict"; the rest
# is the state of their training.
NESTED_WEIGHTS = ("model", "state_dict")

PICKLE_REFUSED = (
    "{file} holds {name} beside its tensors, and reading that could run code of whoever wrote the file: nothing was "
    "loaded. If you trust its origin, load it with `torch.load(..., weights_only=False)` on a machine where that may "
    "happen, write the weights with `safetensors.torch.save_file`, and pass that file."
)


def locate(source: str | PathLike) -> Path:
    """
    Find the checkpoint on this machine, after a download where it stands on the Hub.

    Args:
        source: Local file, folder or Hub id; from a repository its safetensors are taken or, if it has none, pickles.

    Returns:
        The path of the file or folder.

    Raises:
        ValueError: `source` is neither on disk nor on the Hub, or the repository has no weights.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    for pattern in WEIGHT_PATTERNS:
        try:
            folder = Path(snapshot_download(str(source), allow_patterns=["*.json", pattern]))
        except (OSError, ValueError) as error:  # what every failure of the Hub client derives from
            raise ValueError(
                f"'{source}' is no local file or folder, and the Hub gave no repository of that name: {error}"
            ) from error
        if any(folder.glob(pattern)):
            return folder
    raise ValueError(f"The Hub repository '{source}' holds no weights; looked for {', '.join(WEIGHT_PATTERNS)}.")


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.json of a folder, or the one beside a file; {} where there is none."""
    file = config_folder(path) / "config.json"
    return read_json(file) if file.exists() else {}


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; anything else in the file raises a ValueError that names it."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}; expected an object.")
    return content


def config_folder(path: Path) -> Path:
    """Return the folder in which the config.json of a checkpoint lies, if it has one."""
    return path if path.is_dir() else path.parent


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """
    Read all tensors of a checkpoint, mapped from disk where the format allows it.

    Args:
        path: A file, or a folder with one file or the shards of one checkpoint.

    Returns:
        Each weight's tensor by its name in the checkpoint.

    Raises:
        ValueError: `path` is a folder without a clear set of weights, a damaged file, or a pickle that holds more than
            tensors.
    """
    weights: dict[str, torch.Tensor] = {}
    for file in weight_files(path):
        weights |= read_file(file)
    return weights


def weight_files(path: Path) -> list[Path]:
    """List the files that together hold the weights: `path` itself, a folder's standard files, or its only one."""
    if path.is_file():
        return [path]
    for name in STANDARD_NAMES:
        file = path / name
        if file.exists() and file.suffix == ".json":
            return sorted({path / shard for shard in read_json(file).get("weight_map", {}).values()})
        if file.exists():
            return [file]
    files = sorted(file for pattern in WEIGHT_PATTERNS for file in path.glob(pattern))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ValueError(
            f"{path} should hold {' or '.join(STANDARD_NAMES)}, or a single {', '.join(WEIGHT_PATTERNS)} file; "
            f"found: {found}. Name the file itself."
        )
    return files


def read_file(file: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of one file: safetensors, or a pickle, of which torch then reads nothing but tensors."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        # Only torch's zip format can be mapped into memory.
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        if blocked := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(PICKLE_REFUSED.format(file=file, name=blocked[1])) from error
        raise ValueError(f"{file} is damaged, or no checkpoint in torch's format.") from error
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        raise ValueError(f"{file} cannot be read as a checkpoint: {error}") from error
    for name in NESTED_WEIGHTS:
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(name), dict):
            checkpoint = checkpoint[name]
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{file} holds a {type(checkpoint).__name__}; expected a dictionary of tensors.")
    return checkpoint


def load_strictly(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    state_dict: dict[str, torch.Tensor],
    what: str,
    *,
    dtype: torch.dtype = torch.float32,
    new: str | None = None,
) -> PreTrainedModel:
    """
    Build a model on these tensors; those that have the right dtype are shared, not copied.

    Args:
        model_class: Class of the model, of transformers or ours.
        config: Configuration of the model.
        state_dict: Tensors of the model by name; a tied head may be left out.
        what: Name of the checkpoint in error messages.
        dtype: Number type in which the model computes; tensors of another one are converted.
        new: Prefix of the weights that may be missing and are then initialised; None if none may.

    Returns:
        The model, with every weight of `state_dict` in its place.

    Raises:
        ValueError: The weights do not fit; the message names those that are missing, left over or of another shape.
    """
    model, loading_info = model_class.from_pretrained(
        None,
        config=config,
        state_dict=state_dict,
        dtype=dtype,
        ignore_mismatched_sizes=True,  # so that the message below can name the weights; transformers' own does not
        output_loading_info=True,
    )
    missing = [name for name in loading_info["missing_keys"] if new is None or not name.startswith(new)]
    shapes = [
        f"{name} is {tuple(file)} instead of {tuple(expected)}"
        for name, file, expected in loading_info["mismatched_keys"]
    ]
    refuse_if_any(what, missing=missing, unexpected=loading_info["unexpected_keys"], shapes=shapes)
    return model


def refuse_if_any(what: str, **problems: Iterable[str]) -> None:
    """Raise a ValueError that lists, under its kind, every weight in `problems`."""
    listed = [f"{kind}: {', '.join(sorted(names))}" for kind, names in problems.items() if names]
    if listed:
        raise ValueError(f"The weights of {what} do not fit. {'; '.join(listed)}.")


__all__ = ["config_folder", "load_strictly", "locate", "read_config", "read_weights", "refuse_if_any"]

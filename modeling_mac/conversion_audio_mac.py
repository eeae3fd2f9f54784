"""Conversion of a pretrained audio tower of any kind, which is recognised by the names of its weights."""

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any

import torch
from transformers.configuration_utils import PreTrainedConfig

from .configuration_mac import AUDIO_CONFIGS, MacConfig
from .conversion_eat_mac import load_eat
from .conversion_ssamba_mac import load_ssamba
from .conversion_whisper_mac import load_whisper
from .weight_files_mac import config_folder, locate, read_config, read_weights


LOADERS: dict[str, Callable[[Any], tuple[PreTrainedConfig, dict[str, torch.Tensor]]]] = {
    "mac_eat": load_eat,
    "mac_ssamba": load_ssamba,
    "mac_whisper": load_whisper,
}

IN_MAC = "model.audio_tower."  # where the names of a whole model's audio tower begin

# For each kind the end of a weight's name that only files of this kind have; a file with none of them is an EAT.
SIGNS = {"mac_ssamba": "mixer.A_b_log", "mac_whisper": "encoder.conv1.weight"}


def load_audio_tower(source: str | PathLike) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
    """
    Read an audio tower's configuration and its weights under the names of this package.

    Args:
        source: Local file, folder or Hub id of a tower, as its authors released it or as this package saved it, or of
            a whole MAC, whose tower is taken.

    Raises:
        ValueError: The source cannot be read or is no such tower, or a weight is missing or left over.
    """
    path = locate(source)
    config, weights = read_config(path), read_weights(path)
    if config.get("model_type") == MacConfig.model_type:
        inside = {name.removeprefix(IN_MAC): weight for name, weight in weights.items() if name.startswith(IN_MAC)}
        if not inside:
            raise ValueError(f"{source} is of a MAC, but holds no weight of an audio tower (`{IN_MAC}…`).")
        return MacConfig.from_pretrained(config_folder(path)).audio_config, inside
    return LOADERS[kind_of_tower(config, weights)](source)


def kind_of_tower(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """Tell a tower's `model_type` from its configuration, if this package wrote it, or from its weights' names."""
    if config.get("model_type") in AUDIO_CONFIGS:
        return config["model_type"]
    return next((kind for name in names for kind, sign in SIGNS.items() if name.endswith(sign)), "mac_eat")


__all__ = ["kind_of_tower", "load_audio_tower"]

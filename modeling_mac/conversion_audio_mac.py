"""A pretrained audio tower of any kind -> its configuration and weights; the names of its weights tell the kind."""

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any

import torch
from transformers.configuration_utils import PreTrainedConfig

from .configuration_mac import AUDIO_CONFIGS
from .conversion_eat_mac import load_eat
from .conversion_ssamba_mac import load_ssamba
from .conversion_whisper_mac import load_whisper
from .weight_files_mac import locate, read_config, read_weights


LOADERS: dict[str, Callable[[Any], tuple[PreTrainedConfig, dict[str, torch.Tensor]]]] = {
    "mac_eat": load_eat,
    "mac_ssamba": load_ssamba,
    "mac_whisper": load_whisper,
}

# A weight that only files of this kind have, whatever stands in front of its name; EAT is what has none of these.
SIGNS = {"mac_ssamba": "mixer.A_b_log", "mac_whisper": "encoder.conv1.weight"}


def load_audio_tower(source: str | PathLike) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
    """
    An audio tower's configuration and weights under our names.

    Args:
        source: A local file, folder or Hub id, of a kind in `LOADERS`, in the form it was released in or in ours.

    Raises:
        ValueError: the source cannot be read, is no such tower, or a weight is missing or left over.
    """
    path = locate(source)
    return LOADERS[kind_of_tower(read_config(path), read_weights(path))](source)


def kind_of_tower(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """`model_type` of the tower that a configuration of ours names, or that the weights are of."""
    if config.get("model_type") in AUDIO_CONFIGS:
        return config["model_type"]
    return next((kind for name in names for kind, sign in SIGNS.items() if name.endswith(sign)), "mac_eat")


__all__ = ["kind_of_tower", "load_audio_tower"]

"""Conversion of a pretrained Whisper, as released on the Hub, to its encoder as an audio tower."""

from dataclasses import fields
from os import PathLike

import torch
from transformers import WhisperConfig

from .configuration_mac import WhisperTowerConfig
from .weight_files_mac import locate, read_config, read_weights


def load_whisper(source: str | PathLike) -> tuple[WhisperTowerConfig, dict[str, torch.Tensor]]:
    """
    Read the configuration and the weights of a Whisper's encoder, for `WhisperTowerModel`.

    Args:
        source: Local folder or Hub id of a Whisper in transformers' form, or of a tower that this package saved.

    Raises:
        ValueError: The source cannot be read, has no config.json of a Whisper, or holds no encoder.
    """
    path = locate(source)
    config, weights = read_config(path), read_weights(path)
    kinds = (WhisperConfig.model_type, WhisperTowerConfig.model_type)
    if config.get("model_type") not in kinds:
        raise ValueError(
            f"{source} has the weights of a Whisper, but its config.json names the kind {config.get('model_type')!r}; "
            f"expected {' or '.join(map(repr, kinds))}."
        )
    if config["model_type"] == "whisper":
        weights = {
            name.split("encoder.", 1)[1]: weight
            for name, weight in weights.items()
            if name.startswith(("encoder.", "model.encoder."))
        }
    known = {field.name for field in fields(WhisperTowerConfig)} | {"num_mel_bins", "d_model"}
    taken = {name: value for name, value in config.items() if name in known and name not in NOT_THE_ENCODERS}
    return WhisperTowerConfig(**taken), weights


# Fields of a released configuration that concern the decoder or the file, and not the encoder.
NOT_THE_ENCODERS = {
    "architectures", "model_type", "transformers_version", "dtype", "is_encoder_decoder", "suppress_tokens",
    "begin_suppress_tokens", "use_cache", "decoder_start_token_id",
}  # fmt: skip

__all__ = ["load_whisper"]

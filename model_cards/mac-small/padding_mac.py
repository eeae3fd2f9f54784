"""
Windows that are not full are encoded as far as they are heard: most recordings are shorter than a window of 10.24 s.

How many columns of padding follow what is heard depends on the window alone, and so does its encoding, whatever else
is in its batch.
"""

import torch
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel


STEP = 4  # columns to which lengths are rounded up, so that more windows are of one length and encoded together
ROUNDING = 5e-3  # of a cell of padding, where features are bf16; a frame of 128 such cells is nothing that sounds


def ends_early(input_features: torch.Tensor, config: PreTrainedConfig) -> bool:
    """Tell whether windows are encoded as far as they are heard: they are not where they have another shape."""
    if getattr(config, "padding_columns", None) is None or config.keep_rate < 1 or input_features.ndim != 3:
        return False
    frames, bins = input_features.shape[1:]
    return frames % config.patch_size == 0 and bins == config.num_mel_bins


def count_columns(input_features: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """
    Count the columns of patches that are encoded of each window: those that are heard and some of padding.

    Args:
        input_features: Normalised log-mel windows, (windows, frames, mel bins).
        config: An `EatConfig` with `padding_columns`.

    Returns:
        (windows,)
    """
    frames = input_features.shape[1]
    # (windows, frames); what is no number is heard, too
    is_heard = ~((input_features - config.padding_cell).abs() <= ROUNDING).all(-1)
    last = (is_heard * torch.arange(1, frames + 1, device=is_heard.device)).amax(1)
    columns = -(-last // config.patch_size) + config.padding_columns
    return (-(-columns // STEP) * STEP).clamp(min=1, max=frames // config.patch_size)


def encode_heard(tower: PreTrainedModel, input_features: torch.Tensor) -> torch.Tensor:
    """
    Encode windows as far as they are heard; the columns after that get the tokens of the last one of padding.

    Args:
        tower: An `EatModel` whose configuration has `padding_columns`.
        input_features: As in `count_columns`, at least one window.

    Returns:
        `last_hidden_state` of the tower, (windows, 1 + patches, dim).
    """
    config = tower.config
    columns = count_columns(input_features, config)
    every, bins = (size // config.patch_size for size in input_features.shape[1:])
    encoded = input_features.new_empty(0)
    for count in columns.unique().tolist():
        rows = columns == count
        tokens = tower(input_features[rows, : count * config.patch_size], return_dict=True).last_hidden_state
        tokens = torch.cat([tokens, tokens[:, -bins:].repeat(1, every - count, 1)], dim=1)
        encoded = encoded if len(encoded) else tokens.new_empty(len(rows), *tokens.shape[1:])
        encoded[rows] = tokens
    return encoded


__all__ = ["encode_heard", "ends_early"]

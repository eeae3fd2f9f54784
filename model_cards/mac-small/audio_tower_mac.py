"""
The table of audio towers: which model class serves which kind of audio configuration.

A tower takes windows of log-mel, (windows, frames, mel bins), and returns `last_hidden_state`
(windows, 1 + rows * columns, width): one token that sums up the window, then the tokens of the grid, of which time
step t and frequency f stand at `1 + t * columns + f`. The configuration of a tower has `grid`, `hidden_size` and
`window_frames`. A new kind needs a line here and a line in `AUDIO_CONFIGS`.
"""

import torch
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import torch_compilable_check

from .modeling_eat import EatModel
from .modeling_ssamba import SsambaModel
from .modeling_whisper_mac import WhisperTowerModel


AUDIO_TOWERS: dict[str, type[PreTrainedModel]] = {
    "mac_eat": EatModel,
    "mac_ssamba": SsambaModel,
    "mac_whisper": WhisperTowerModel,
}


def build_audio_tower(config: PreTrainedConfig) -> PreTrainedModel:
    """Build the tower that `config.model_type` names, with newly initialised weights."""
    return AUDIO_TOWERS[config.model_type](config)


def check_num_windows(input_features: torch.Tensor, audio_num_windows: torch.Tensor | None) -> None:
    """Refuse windows, (windows, ...), whose number is not the sum of the clips' windows, (clips,)."""
    if audio_num_windows is None:
        return
    torch_compilable_check(
        audio_num_windows.sum() == input_features.shape[0],
        lambda: (
            f"`audio_num_windows` adds up to {int(audio_num_windows.sum())}, but `input_features` holds "
            f"{input_features.shape[0]} windows."
        ),
    )


__all__ = ["AUDIO_TOWERS", "build_audio_tower", "check_num_windows"]

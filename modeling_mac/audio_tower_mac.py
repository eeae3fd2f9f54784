"""
Which model an audio tower is.

A tower takes windows of log-mel, (windows, frames, mel bins), and gives `last_hidden_state`
(windows, 1 + rows * columns, width): one token that sums up the window, then token `1 + t * columns + f` of its grid.
Its configuration has `grid`, `hidden_size` and `window_frames`. A new kind is a line here and one in `AUDIO_CONFIGS`.
"""

from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from .modeling_eat import EatModel
from .modeling_ssamba import SsambaModel
from .modeling_whisper_mac import WhisperTowerModel


AUDIO_TOWERS: dict[str, type[PreTrainedModel]] = {
    "mac_eat": EatModel,
    "mac_ssamba": SsambaModel,
    "mac_whisper": WhisperTowerModel,
}


def build_audio_tower(config: PreTrainedConfig) -> PreTrainedModel:
    """The tower that `config.model_type` names, with new weights."""
    return AUDIO_TOWERS[config.model_type](config)


__all__ = ["AUDIO_TOWERS", "build_audio_tower"]

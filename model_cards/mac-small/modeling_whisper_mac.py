"""Whisper's encoder (Radford et al., arXiv 2212.04356) as an audio tower, on the layers of transformers."""

import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .configuration_mac import WhisperTowerConfig


class WhisperTowerModel(WhisperEncoder):
    """The encoder of a Whisper; its weights have the names that they have in `WhisperModel.encoder`."""

    config: WhisperTowerConfig
    config_class = WhisperTowerConfig
    base_model_prefix = ""
    main_input_name = "input_features"
    _no_split_modules = ["WhisperEncoderLayer"]

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that transformers initialises these modules as it does in its own encoder."""
        return False

    def forward(self, input_features: torch.Tensor, **kwargs) -> BaseModelOutput:
        """
        Args:
            input_features: Whisper's normalised log-mel, (windows, window_frames, mel bins).

        Returns:
            `last_hidden_state`, (windows, 1 + window_frames / 2, hidden_size): the mean of all tokens, since Whisper
            has no token of its own that sums up a window, and then a token for each 20 ms.

        Raises:
            ValueError: The features have another shape.
        """
        shape, frames, bins = tuple(input_features.shape), self.config.window_frames, self.config.num_mel_bins
        if len(shape) != 3 or shape[1:] != (frames, bins):
            raise ValueError(f"`input_features` has shape {shape}; expected (windows, {frames}, {bins}).")
        kwargs["return_dict"] = True
        encoded = super().forward(input_features.to(self.dtype).transpose(1, 2), **kwargs)
        tokens = encoded.last_hidden_state
        return BaseModelOutput(
            last_hidden_state=torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


__all__ = ["WhisperTowerModel"]

"""Two pretrained towers -> what `MacForConditionalGeneration.from_towers` is built of."""

from dataclasses import dataclass
from os import PathLike

import torch
from transformers import GenerationConfig
from transformers.configuration_utils import PreTrainedConfig

from .conversion_audio_mac import load_audio_tower
from .conversion_eat_mac import convert_eat_state_dict, load_eat
from .conversion_text_mac import first_free_row, language_model_config, load_language_model
from .language_model_mac import kind_of
from .weight_files_mac import load_strictly, locate


@dataclass
class Towers:
    """
    What `MacForConditionalGeneration.from_towers` is built of.

    Args:
        audio_config: The encoder's configuration.
        text_config: The language model's configuration.
        audio_token_id: The row of the vocabulary that `<|audio|>` takes.
        tied: Whether the language model's head is its embedding.
        state_dict: The weights of both under the names they have in `MacForConditionalGeneration`.
    """

    audio_config: PreTrainedConfig
    text_config: PreTrainedConfig
    audio_token_id: int
    tied: bool
    state_dict: dict[str, torch.Tensor]


def load_towers(audio: str | PathLike, language_model: str | PathLike, audio_token_id: int | None = None) -> Towers:
    """
    Read both towers; each source is a local file, a folder or a Hub id.

    Args:
        audio: See `load_audio_tower`.
        language_model: See `load_language_model`.
        audio_token_id: The row that `<|audio|>` takes; by default the first that a GPT-NeoX tokenizer leaves free.

    Raises:
        ValueError: a source cannot be read, is no such model, or lacks weights; MAC cannot run the language
            model, or no row is known to be free.
    """
    path = locate(language_model)
    text_config, num_tokens = language_model_config(path)
    kind_of(text_config)  # or a ValueError, before anything large is read
    if audio_token_id is None:
        audio_token_id = first_free_row(text_config, num_tokens)
    audio_config, audio_weights = load_audio_tower(audio)
    text_weights, tied = load_language_model(path, text_config)
    audio_weights = {f"model.audio_tower.{name}": weight for name, weight in audio_weights.items()}
    return Towers(audio_config, text_config, audio_token_id, tied, audio_weights | text_weights)


def default_generation_config(text_config: PreTrainedConfig, audio_token_id: int) -> GenerationConfig:
    """Short captions with the language model's own special tokens; `<|audio|>` stands for audio and is never said."""
    return GenerationConfig(
        max_new_tokens=64,
        bos_token_id=text_config.bos_token_id,
        eos_token_id=text_config.eos_token_id,
        pad_token_id=text_config.pad_token_id,
        suppress_tokens=[audio_token_id],
    )


__all__ = ["Towers", "convert_eat_state_dict", "default_generation_config", "load_eat", "load_strictly", "load_towers"]

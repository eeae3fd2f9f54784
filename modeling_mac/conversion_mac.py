"""Reads two pretrained towers for `MacForConditionalGeneration.from_towers`."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from os import PathLike

import torch
from transformers import GenerationConfig
from transformers.configuration_utils import PreTrainedConfig

from .configuration_mac import MacConfig
from .conversion_audio_mac import load_audio_tower
from .conversion_eat_mac import convert_eat_state_dict, load_eat
from .conversion_text_mac import first_free_row, language_model_config, load_language_model
from .language_model_mac import check_language_model
from .weight_files_mac import load_strictly, locate


SAID_BY_TOWERS = {"audio_config", "text_config", "tie_word_embeddings"}


@dataclass
class Towers:
    """
    The two towers that `MacForConditionalGeneration.from_towers` joins.

    Args:
        audio_config: Configuration of the encoder.
        text_config: Configuration of the language model.
        audio_token_id: Row of the vocabulary that `<|audio|>` takes.
        tied: Whether the language model's head shares the matrix of its embedding.
        state_dict: Weights of both towers under the names that they have in `MacForConditionalGeneration`.
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
        audio: Source of the audio tower, as `load_audio_tower` takes it.
        language_model: Source of the language model, in the form of state-spaces or of transformers.
        audio_token_id: Row that `<|audio|>` takes; if None, the first that a GPT-NeoX tokenizer leaves free.

    Raises:
        ValueError: A source cannot be read, is no such model or lacks weights; MAC cannot run the language model; or
            no row is known to be free.
    """
    path = locate(language_model)
    text_config, num_tokens = language_model_config(path)
    check_language_model(text_config)  # before anything large is read
    if audio_token_id is None:
        audio_token_id = first_free_row(text_config, num_tokens)
    audio_config, audio_weights = load_audio_tower(audio)
    text_weights, tied = load_language_model(path, text_config)
    audio_weights = {f"model.audio_tower.{name}": weight for name, weight in audio_weights.items()}
    return Towers(audio_config, text_config, audio_token_id, tied, audio_weights | text_weights)


def refuse_unknown_fields(names: Iterable[str]) -> None:
    """Refuse names that are no field of `MacConfig`, which would keep and never read them, or that the towers say."""
    known = {field.name for field in fields(MacConfig)} - SAID_BY_TOWERS
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"`from_towers` takes no {name!r}; expected a field of `MacConfig` that no tower says.{hint}"
            )


def copy_projections(weights: dict[str, torch.Tensor], names: list[str] | None) -> dict[str, torch.Tensor]:
    """Add copies of these projections of the language model, for audio tokens, to the weights of both towers."""
    copies = {
        name.replace(f".mixer.{own}.", f".mixer.{own}_audio."): weight.clone()
        for own in names or []
        for name, weight in weights.items()
        if name.startswith("model.language_model.") and f".mixer.{own}." in name
    }
    return weights | copies


def default_generation_config(text_config: PreTrainedConfig, audio_token_id: int) -> GenerationConfig:
    """Ask for captions of up to 64 tokens, with the language model's own special tokens and never `<|audio|>`."""
    return GenerationConfig(
        max_new_tokens=64,
        bos_token_id=text_config.bos_token_id,
        eos_token_id=text_config.eos_token_id,
        pad_token_id=text_config.pad_token_id,
        suppress_tokens=[audio_token_id],
    )


__all__ = [
    "Towers",
    "convert_eat_state_dict",
    "copy_projections",
    "default_generation_config",
    "load_eat",
    "load_strictly",
    "load_towers",
    "refuse_unknown_fields",
]

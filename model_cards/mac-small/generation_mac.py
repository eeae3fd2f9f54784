"""How MAC generates: every clip is read once, and its cache is then repeated for its beams or samples."""

from typing import Any

import torch
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.utils import ModelOutput


# Inputs that have a row for every window or clip and not for every sequence; only the first step reads them.
AUDIO_INPUTS = ("input_features", "encoder_hidden_states", "audio_num_windows")

OWN_CACHE = ("mac_discrete_mamba2", "mamba", "mamba2")  # kinds of language models that make a cache of their own class


class MacGenerationMixin(GenerationMixin):
    """
    A `GenerationMixin` that reads every clip once, however many beams or samples continue it.

    It overrides private methods of transformers, since there is no public place between the first step and the others.
    """

    def _supports_default_dynamic_cache(self) -> bool:
        # No for a Mamba: `generate` would hand it a plain `DynamicCache`, but the model itself makes a `StateCache`,
        # whose layout it reads faster.
        return self.config.text_config.model_type not in OWN_CACHE

    def _update_model_kwargs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """
        Prepare the arguments of the next step, without the encodings once a cache holds what was heard.

        transformers itself leaves out `input_features`, which it knows by name.
        """
        model_kwargs = super()._update_model_kwargs_for_generation(*args, **kwargs)
        if model_kwargs.get("use_cache", True):
            model_kwargs.pop("encoder_hidden_states", None)
        return model_kwargs

    def _valid_auto_compile_criteria(self, model_kwargs: dict[str, Any], generation_config: GenerationConfig) -> bool:
        """
        Compile the whole model on request alone.

        On a CUDA device transformers would do it for minutes wherever a kept state is gone on from, since its cache
        could be compiled; `compile_decoding` takes a moment.
        """
        on_request = generation_config.compile_config is not None
        return on_request and super()._valid_auto_compile_criteria(model_kwargs, generation_config)

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        """Refuse arguments that nothing would read; `unread_tokens` is read by `_prefill`."""
        super()._validate_model_kwargs({name: model_kwargs[name] for name in model_kwargs if name != "unread_tokens"})

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **model_kwargs: Any
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Repeat the text of every clip `expand_size` times; its audio and its cache stay single until `_prefill`."""
        audio = {name: model_kwargs.pop(name) for name in AUDIO_INPUTS if name in model_kwargs}
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | audio

    def _prefill(
        self, input_ids: torch.Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any], **kwargs: Any
    ) -> ModelOutput:
        """
        Read every clip and its prompt once, then repeat what follows from them for its beams or samples.

        With `unread_tokens`, the tokens before the last so many are in the cache already: the cache of a state space
        does not tell how many it has read.
        """
        if (unread := model_kwargs.pop("unread_tokens", None)) is not None:
            input_ids = input_ids[:, -unread:]
        copies = max(generation_config.num_beams, generation_config.num_return_sequences)
        if copies == 1:
            return super()._prefill(input_ids, generation_config, model_kwargs, **kwargs)
        if not model_kwargs["use_cache"]:  # without a cache every step reads the audio again, for every sequence
            audio = {name: model_kwargs[name] for name in AUDIO_INPUTS if model_kwargs.get(name) is not None}
            model_kwargs.update(repeat_clips(copies, audio))
            return super()._prefill(input_ids, generation_config, model_kwargs, **kwargs)
        single = {
            name: value[::copies] if isinstance(value, torch.Tensor) and name not in AUDIO_INPUTS else value
            for name, value in model_kwargs.items()
        }
        outputs = super()._prefill(input_ids[::copies], generation_config, single, **kwargs)
        rows = torch.arange(len(input_ids) // copies, device=input_ids.device).repeat_interleave(copies)
        outputs.cache.reorder_cache(rows)
        outputs.logits = outputs.logits[rows]  # (clips * copies, 1, vocabulary)
        for name in ("hidden_states", "attentions"):
            if outputs.get(name) is not None:
                outputs[name] = tuple(layer[rows] for layer in outputs[name])
        return outputs


def repeat_clips(copies: int, audio: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Repeat whole clips, so that all windows of a copy stay together.

    Args:
        copies: Number of times that each clip is to stand in the batch.
        audio: Tensors by name, some of `AUDIO_INPUTS`.
    """
    repeated, counts = {}, audio.get("audio_num_windows")
    for name, tensor in audio.items():
        if name == "audio_num_windows":
            repeated[name] = tensor.repeat_interleave(copies)
        else:
            clips = tensor.split(1 if counts is None else counts.tolist())
            repeated[name] = torch.cat([clip for clip in clips for _ in range(copies)])
    return repeated


__all__ = ["MacGenerationMixin"]

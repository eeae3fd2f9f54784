"""MAC (arXiv 2509.15680): EAT encoder -> connector -> Mamba-2 language model -> caption."""

from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel, slice_logits_to_keep
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import ModelOutput, can_return_tuple, torch_compilable_check

from .audio_tower_mac import build_audio_tower
from .configuration_mac import MacConfig
from .connector_mac import CONNECTORS
from .generation_mac import MacGenerationMixin
from .language_model_mac import build_language_model, finish_logits, head_has_bias, read
from .linear_mac import as_weight, project


ENCODER_BATCH = 32  # windows encoded at a time where no gradient is needed: bounds the memory of hour-long recordings


@dataclass
class MacModelOutput(ModelOutput):
    """
    Args:
        last_hidden_state: (batch, length, width) of the language model.
        cache: The language model's cache, whatever its kind.
        hidden_states, attentions: Of the language model's layers, where asked for and supported.
        audio_hidden_states: (windows, audio tokens a window, width) what the connector gave.
    """

    last_hidden_state: torch.Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.Tensor] | None = None
    attentions: tuple[torch.Tensor] | None = None
    audio_hidden_states: torch.Tensor | None = None


@dataclass
class MacCausalLMOutput(ModelOutput):
    """
    Args:
        loss: Mean cross-entropy of the labelled tokens.
        logits: (batch, length, vocabulary); in training with labels only those of the labels, (labels, vocabulary).
        cache, hidden_states, attentions, audio_hidden_states: As in `MacModelOutput`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.Tensor] | None = None
    attentions: tuple[torch.Tensor] | None = None
    audio_hidden_states: torch.Tensor | None = None


class MacPreTrainedModel(PreTrainedModel):
    config: MacConfig
    base_model_prefix = "model"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["EatEmbeddings", "EatLayer", "EatPruningLayer", "WhisperEncoderLayer", "Mamba2Block"]
    _skip_keys_device_placement = ["cache"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @classmethod
    def is_custom_code(cls) -> bool:
        """Initialised as transformers' own models are: also modules without weights of their own."""
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Towers initialise themselves; the rest (connector, head) is ours."""
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)


class MacModel(MacPreTrainedModel):
    """Encoder, connector and language model without a head."""

    def __init__(self, config: MacConfig):
        super().__init__(config)
        self.audio_tower = build_audio_tower(config.audio_config)
        self.connector = CONNECTORS[config.connector_type](config)
        self.language_model = build_language_model(config.text_config)
        self._is_stateful = self.language_model._is_stateful
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_audio_features(self, input_features: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """
        Encode windows of log-mel, (windows, frames, mel bins).

        Returns:
            `last_hidden_state`: the encoder's (windows, 1 + patches, dim), and its `hidden_states` and `attentions`;
            `pooler_output`: the connector's (windows, audio tokens a window, width of the language model).
        """
        exporting = torch.compiler.is_exporting()  # in an exported graph the number of windows stays open
        if not (exporting or kwargs or torch.is_grad_enabled()) and len(input_features) > ENCODER_BATCH:
            parts = [self.get_audio_features(part, return_dict=True) for part in input_features.split(ENCODER_BATCH)]
            return BaseModelOutputWithPooling(
                last_hidden_state=torch.cat([part.last_hidden_state for part in parts]),
                pooler_output=torch.cat([part.pooler_output for part in parts]),
            )
        # A frozen encoder keeps no activations, also where activation checkpointing marks every embedding as learning.
        learns = input_features.requires_grad or any(weight.requires_grad for weight in self.audio_tower.parameters())
        with nullcontext() if learns else torch.no_grad():
            encoded = self.audio_tower(input_features, return_dict=True, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=self.connector(encoded.last_hidden_state[:, 1:]),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def insert_audio(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, audio_embeds: torch.Tensor
    ) -> torch.Tensor:
        """Put the audio embeddings, in order, where `<|audio|>` or its embedding stands; the counts must agree."""
        if input_ids is not None:
            is_audio = input_ids == self.config.audio_token_id
        else:
            placeholder = torch.tensor(self.config.audio_token_id, device=inputs_embeds.device)
            is_audio = (inputs_embeds == self.get_input_embeddings()(placeholder)).all(-1)
        expected = audio_embeds.shape[0] * audio_embeds.shape[1]
        torch_compilable_check(
            is_audio.sum() == expected,
            lambda: (
                f"The text holds {int(is_audio.sum())} audio tokens, but {audio_embeds.shape[0]} audio windows need "
                f"{expected} ({audio_embeds.shape[1]} each): was the text truncated, or written without the processor?"
            ),
        )
        return inputs_embeds.masked_scatter(
            is_audio.unsqueeze(-1).to(inputs_embeds.device), audio_embeds.to(inputs_embeds)
        )

    def check_no_audio(self, input_ids: torch.Tensor) -> None:
        """Refuse a text whose audio was forgotten."""
        is_audio = input_ids == self.config.audio_token_id
        torch_compilable_check(
            ~is_audio.any(),
            lambda: f"The text holds {int(is_audio.sum())} audio tokens, but no `input_features` came with it.",
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_num_windows: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> MacModelOutput:
        """
        Args:
            input_ids: (batch, length) text with `<|audio|>` placeholders.
            input_features: (windows of all clips, frames, mel bins) log-mel.
            audio_num_windows: (clips,) windows of each clip; one each if None.
            attention_mask: (batch, length), 0 at padding.
            position_ids: For language models that have positions; if None, counted from the mask or the cache.
            cache: Cache of a previous call.
            inputs_embeds: (batch, length, width) instead of `input_ids`, as `get_input_embeddings` gives them.
            encoder_hidden_states: (windows, 1 + patches, dim) the encoder's output, if computed earlier, instead of
                `input_features`.
            use_cache: Whether to return the cache.

        Raises:
            ValueError: audio without text, text without its audio, audio given twice, or counts of windows or audio
                tokens that do not match; padding after a kept state, or packed sequences for a language model that
                would join them.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        if input_features is not None and encoder_hidden_states is not None:
            raise ValueError("Give one of `input_features` and `encoder_hidden_states`: one replaces the other.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        audio_embeds = None
        if input_features is not None:
            check_num_windows(input_features, audio_num_windows)
            audio_embeds = self.get_audio_features(input_features, return_dict=True).pooler_output
        elif encoder_hidden_states is not None:
            check_num_windows(encoder_hidden_states, audio_num_windows)
            audio_embeds = self.connector(encoder_hidden_states[:, 1:])
        if audio_embeds is not None:
            inputs_embeds = self.insert_audio(input_ids, inputs_embeds, audio_embeds)
        elif input_ids is not None and cache is None:
            self.check_no_audio(input_ids)

        outputs = read(
            self.language_model, inputs_embeds, attention_mask, position_ids, cache, use_cache=use_cache, **kwargs
        )
        return MacModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            cache=getattr(outputs, "cache", None),
            hidden_states=outputs.hidden_states,
            attentions=getattr(outputs, "attentions", None),
            audio_hidden_states=audio_embeds,
        )


def check_num_windows(input_features: torch.Tensor, audio_num_windows: torch.Tensor | None) -> None:
    """Refuse windows that belong to no clip, or clips without their windows."""
    if audio_num_windows is None:
        return
    torch_compilable_check(
        audio_num_windows.sum() == input_features.shape[0],
        lambda: (
            f"`audio_num_windows` adds up to {int(audio_num_windows.sum())}, but `input_features` holds "
            f"{input_features.shape[0]} windows."
        ),
    )


class MacForConditionalGeneration(MacPreTrainedModel, MacGenerationMixin):
    """MAC with its language-modelling head: audio and a prompt in, a caption out."""

    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: MacConfig):
        super().__init__(config)
        self.model = MacModel(config)
        self._is_stateful = self.model._is_stateful
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=head_has_bias(text))
        embedding = self.model.get_input_embeddings()
        name = next(name for name, module in self.model.named_modules() if module is embedding)
        self._tied_weights_keys = {"lm_head.weight": f"model.{name}.weight"}
        self.post_init()

    @classmethod
    def from_towers(
        cls,
        audio: str | PathLike,
        language_model: str | PathLike,
        *,
        dtype: torch.dtype = torch.float32,
        audio_token_id: int | None = None,
        **config: Any,
    ) -> "MacForConditionalGeneration":
        """
        Build a model from a pretrained encoder and a pretrained language model; only the connector is new.

        Args:
            audio: EAT: a local file, folder or Hub id; original fairseq `.pt` or released safetensors.
            language_model: Mamba-2 (original state-spaces or transformers form) or another causal LM of transformers.
            dtype: Of the weights, whatever the files hold.
            audio_token_id: The vocabulary's row for `<|audio|>`; known for the GPT-NeoX vocabulary only.
            config: Further fields of `MacConfig`, such as `connector_type`.

        Raises:
            ValueError: a weight of a tower is missing or left over, or a file could run code.
            ImportError: the class comes from a saved folder, and the package is not installed.
        """
        # Conversion stays at home: a saved folder brings the code of inference alone, and the loader of remote code
        # would want every file that an import line names.
        try:
            conversion = import_module("modeling_mac.conversion_mac")
        except ModuleNotFoundError as error:
            raise ImportError("`from_towers` needs the package: pip install mamba-audio-captioning") from error
        towers = conversion.load_towers(audio, language_model, audio_token_id)
        mac_config = MacConfig(
            audio_config=towers.audio_config,
            text_config=towers.text_config,
            audio_token_id=towers.audio_token_id,
            tie_word_embeddings=towers.tied,
            **config,
        )
        model = conversion.load_strictly(
            cls, mac_config, towers.state_dict, "the two towers", dtype=dtype, new="model.connector."
        )
        model.generation_config = conversion.default_generation_config(towers.text_config, towers.audio_token_id)
        return model

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_audio_features(self, input_features: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """See `MacModel.get_audio_features`."""
        return self.model.get_audio_features(input_features, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_num_windows: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> MacCausalLMOutput:
        """
        Args:
            labels: (batch, length) token ids to predict, -100 where none is; shifted inside.
            logits_to_keep: Compute the logits of the last so many positions only (0: all).
            num_items_in_batch: Labelled tokens of the whole global batch, from the Trainer.
            kwargs: `shift_labels`, the labels already shifted, as sequence-parallel training needs them, replaces
                `labels`. It is not named: the Trainer would ask for both, and evaluate without a loss.

        The other arguments are those of `MacModel.forward`. In training, logits are computed only where a label is.
        """
        shift_labels = kwargs.pop("shift_labels", None)
        outputs = self.model(
            input_ids=input_ids,
            input_features=input_features,
            audio_num_windows=audio_num_windows,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            use_cache=use_cache,
            **kwargs,
        )
        if labels is not None and shift_labels is None:
            shift_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        if shift_labels is not None and self.training:
            logits_to_keep = shift_labels != -100
            shift_labels = shift_labels[logits_to_keep]
        hidden_states = slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)
        logits = project(self.lm_head, as_weight(hidden_states, self.lm_head))
        logits = finish_logits(self.config.text_config, logits)
        loss = None
        if shift_labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=None,
                vocab_size=logits.shape[-1],
                shift_labels=shift_labels,
                num_items_in_batch=num_items_in_batch,
            )
        return MacCausalLMOutput(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            audio_hidden_states=outputs.audio_hidden_states,
        )


# Where the Trainer smooths labels it takes the loss out of the model, and shifts the labels of the classes named here.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["mac"] = MacForConditionalGeneration.__name__

__all__ = ["MacForConditionalGeneration", "MacModel", "MacPreTrainedModel"]

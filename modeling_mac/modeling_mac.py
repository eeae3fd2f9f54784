"""MAC (arXiv 2509.15680): an audio encoder, a connector and a language model (EAT and Mamba-2) that write captions."""

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

from .audio_tower_mac import build_audio_tower, check_num_windows
from .configuration_mac import MacConfig
from .connector_mac import CONNECTORS
from .generation_mac import MacGenerationMixin
from .int8_mac import round_model
from .language_model_mac import build_language_model, finish_logits, head_has_bias, read
from .linear_mac import as_weight, project
from .mixing_blocks_mac import ScanMixer
from .padding_mac import encode_heard, ends_early


# Windows that are encoded at a time where no gradient is needed; this bounds the memory of hour-long recordings.
ENCODER_BATCH = 32


@dataclass
class MacModelOutput(ModelOutput):
    """
    Args:
        last_hidden_state: Output of the language model, (batch, length, width).
        cache: Cache of the language model, of the class that it uses.
        hidden_states: Outputs of the language model's layers, each (batch, length, width), if they were asked for.
        attentions: Attention weights of its layers, each (batch, heads, length, length), if asked for and supported.
        audio_hidden_states: Output of the connector, (windows, audio tokens per window, width).
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
        loss: Mean cross-entropy of the labelled tokens, in nats.
        logits: Logits, (batch, length, vocabulary); in training with labels, (labels, vocabulary) of the labels alone.
        cache, hidden_states, attentions, audio_hidden_states: Fields of `MacModelOutput`.
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
        """Say no, so that transformers initialises modules without weights of their own, as in its own models."""
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the connector and the head; the two towers initialise themselves."""
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ScanMixer):  # visited after its parts, which it gives other values
            module.init_weights()


class MacModel(MacPreTrainedModel):
    """The audio encoder, the connector and the language model, without a language-modelling head."""

    def __init__(self, config: MacConfig):
        super().__init__(config)
        self.audio_tower = build_audio_tower(config.audio_config)
        self.connector = CONNECTORS[config.connector_type](config)
        self.language_model = build_language_model(config.text_config, config.modality_projections or ())
        # Private, but asked by `generate`: with a state, it must not offer to roll tokens back (assisted decoding).
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
            `last_hidden_state` of the encoder, (windows, 1 + patches, dim), with its `hidden_states` and `attentions`,
            and as `pooler_output` that of the connector, (windows, audio tokens per window, language model's width).
        """
        plain = not (kwargs or torch.is_grad_enabled())
        exporting = torch.compiler.is_exporting()  # an exported graph must not depend on the number of windows
        if plain and not exporting and len(input_features) > ENCODER_BATCH:
            parts = [self.get_audio_features(part, return_dict=True) for part in input_features.split(ENCODER_BATCH)]
            return BaseModelOutputWithPooling(
                last_hidden_state=torch.cat([part.last_hidden_state for part in parts]),
                pooler_output=torch.cat([part.pooler_output for part in parts]),
            )
        in_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # which is the same whatever is heard
        if plain and not in_graph and ends_early(input_features, self.audio_tower.config):
            encoded = encode_heard(self.audio_tower, input_features)
            return BaseModelOutputWithPooling(last_hidden_state=encoded, pooler_output=self.connector(encoded[:, 1:]))
        # Activation checkpointing marks the output of every embedding as requiring a gradient; a frozen encoder must
        # keep no activations all the same.
        learns = input_features.requires_grad or any(weight.requires_grad for weight in self.audio_tower.parameters())
        with nullcontext() if learns else torch.no_grad():
            encoded = self.audio_tower(input_features, return_dict=True, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=self.connector(encoded.last_hidden_state[:, 1:]),  # all but the summary token
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def find_audio(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """Tell where `<|audio|>` or its embedding stands, (batch, length)."""
        if input_ids is not None:
            return input_ids == self.config.audio_token_id
        placeholder = torch.tensor(self.config.audio_token_id, device=inputs_embeds.device)
        return (inputs_embeds == self.get_input_embeddings()(placeholder)).all(-1)

    def insert_audio(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, audio_embeds: torch.Tensor
    ) -> torch.Tensor:
        """Put the audio embeddings, in order, where `<|audio|>` or its embedding stands; count and width must fit."""
        if audio_embeds.shape[-1] != inputs_embeds.shape[-1]:  # `masked_scatter` would break them into other tokens
            raise ValueError(
                f"Audio embeddings are {audio_embeds.shape[-1]} wide, those of the text {inputs_embeds.shape[-1]}."
            )
        is_audio = self.find_audio(input_ids, inputs_embeds)
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
        """Refuse a text, (batch, length), that holds `<|audio|>` although no audio came with it."""
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
            input_ids: Token ids of the text with its `<|audio|>` placeholders, (batch, length).
            input_features: Log-mel windows of all clips, one clip after the other, (windows, frames, mel bins).
            audio_num_windows: Number of windows of each clip, (clips,); one each if None.
            attention_mask: Mask of the tokens, (batch, tokens in the cache + length), 0 at padding.
            position_ids: Positions, (batch, length), for a language model that has them; counted by default.
            cache: Cache that a previous call returned.
            inputs_embeds: Embeddings of the text, (batch, length, width), instead of `input_ids`.
            encoder_hidden_states: Output of the encoder, (windows, 1 + patches, dim), instead of `input_features`.
            use_cache: Whether to return the cache.

        Raises:
            ValueError: There is audio without text, text without its audio or audio twice; numbers of windows or of
                audio tokens do not match; padding follows a kept state; or packed sequences came for a language model
                that would read them as one.
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
            if self.config.modality_projections:
                kwargs["is_audio"] = self.find_audio(input_ids, inputs_embeds)
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


class MacForConditionalGeneration(MacPreTrainedModel, MacGenerationMixin):
    """MAC with its language-modelling head; `generate` maps audio and a prompt to a caption."""

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
        plan = self._tp_plan or {}
        if f"model.{name}" not in plan:
            # A tied head is the embedding's weight, so tensor parallelism must split both or neither. transformers has
            # no plan for the embedding of Mamba, for one.
            self._tp_plan = {part: way for part, way in plan.items() if part != "lm_head"}

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
            audio: Local file, folder or Hub id of an EAT (fairseq's `.pt` or released safetensors), SSAMBA or Whisper.
            language_model: Local file, folder or Hub id of a Mamba-2 (in the original state-spaces or transformers'
                form) or of another causal language model of transformers.
            dtype: Number type that the weights get, whatever the files hold.
            audio_token_id: Row of the vocabulary for `<|audio|>`; needed outside of the GPT-NeoX vocabulary.
            config: Further fields of `MacConfig`, such as `connector_type`.

        Raises:
            ValueError: A weight of a tower is missing or left over, a file could run code, `MacConfig` has no such
                field, or MAC cannot run the language model.
            ImportError: The class comes from a saved folder, and the package is not installed.
        """
        # Looked up by name and not imported at the top: a saved folder holds the code of inference alone, and the
        # loader of remote code would ask for every file that an import line names.
        try:
            conversion = import_module("modeling_mac.conversion_mac")
        except ModuleNotFoundError as error:
            raise ImportError("`from_towers` needs the package: pip install mamba-audio-captioning") from error
        conversion.refuse_unknown_fields(config)
        towers = conversion.load_towers(audio, language_model, audio_token_id)
        mac_config = MacConfig(
            audio_config=towers.audio_config,
            text_config=towers.text_config,
            audio_token_id=towers.audio_token_id,
            tie_word_embeddings=towers.tied,
            **config,
        )
        weights = conversion.copy_projections(towers.state_dict, mac_config.modality_projections)
        model = conversion.load_strictly(
            cls, mac_config, weights, "the two towers", dtype=dtype, new="model.connector."
        )
        model.generation_config = conversion.default_generation_config(towers.text_config, towers.audio_token_id)
        return model

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def to_int8(self) -> "MacForConditionalGeneration":
        """Round the weights to 8 bits, in place, as `quantization_config=Int8Config()` does on loading."""
        return round_model(self)

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
            labels: Token ids to predict, (batch, length), -100 where there is none; they are shifted here.
            logits_to_keep: Number of last positions whose logits are computed; 0 computes all.
            num_items_in_batch: Number of labelled tokens in the whole global batch, which the Trainer passes.
            kwargs: `shift_labels`, labels that are shifted already, as sequence-parallel training needs them, instead
                of `labels`. The signature does not name it, for the Trainer would then ask for both labels and
                evaluate without a loss.

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
            logits_to_keep = shift_labels != -100  # (batch, length)
            shift_labels = shift_labels[logits_to_keep]  # (labels,)
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


# With label smoothing the Trainer computes the loss itself, and it shifts the labels of the classes named here only.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["mac"] = MacForConditionalGeneration.__name__

__all__ = ["MacForConditionalGeneration", "MacModel", "MacPreTrainedModel"]

"""Configuration of the language model that MOHAWK makes of a transformer, with discrete Mamba-2 for attention."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig


# Kinds of transformers whose attention can be replaced, with the name that it has in a layer.
ATTENTION_NAMES = {"gpt_neox": "attention", "llama": "self_attn", "phi": "self_attn"}


@strict
class DiscreteMamba2Config(PreTrainedConfig):
    """
    A transformer of phi, gpt_neox or llama whose attention is replaced by discrete Mamba-2 (arXiv 2408.10189).

    Args:
        source: Configuration of the transformer, with its `model_type`; embeddings, norms, MLPs and the order of a
            block (parallel in phi and gpt_neox, sequential in llama) are its own.
        attention_layers: Layers, from 0, that keep the transformer's attention.
        state_size: Entries of the state for each channel.
        num_v_heads: Heads of the scan; the transformer's attention heads if 0.
        num_qk_heads: Heads of B and C, a divisor of `num_v_heads`; as many if 0.
        conv_kernel: Taps of the causal convolution.
        expand: Inner width, in widths of the model.
    """

    model_type = "mac_discrete_mamba2"

    source: Any = None
    attention_layers: list[int] = field(default_factory=list)
    state_size: int = 64
    num_v_heads: int = 0
    num_qk_heads: int = 0
    conv_kernel: int = 4
    expand: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        fields = self.source if self.source is not None else {"model_type": "phi"}
        fields = dict(fields) if isinstance(fields, Mapping) else fields.to_dict()
        kind = fields.pop("model_type", None)
        if kind not in ATTENTION_NAMES:
            raise ValueError(
                f"`source.model_type` is {kind!r}; expected a transformer of {', '.join(sorted(ATTENTION_NAMES))}."
            )
        config = AutoConfig.for_model(kind, **fields)
        self.source = {"model_type": kind, **config.to_diff_dict()}
        # What MAC and transformers ask of any language model.
        copied = ("vocab_size", "hidden_size", "num_hidden_layers", "initializer_range", "bos_token_id",
                  "eos_token_id", "pad_token_id", "tie_word_embeddings")  # fmt: skip
        for name in copied:
            kwargs.pop(name, None)
            setattr(self, name, getattr(config, name))
        self.num_v_heads = self.num_v_heads or config.num_attention_heads
        self.num_qk_heads = self.num_qk_heads or self.num_v_heads
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Refuse heads that do not divide, and attention where there is no layer; called by `@strict`."""
        width, heads, shared = self.expand * self.hidden_size, self.num_v_heads, self.num_qk_heads
        if heads < 1 or width % heads:
            raise ValueError(f"`num_v_heads` is {heads}; expected a divisor of the inner width {width}.")
        if shared < 1 or heads % shared:
            raise ValueError(f"`num_qk_heads` is {shared}; expected a divisor of `num_v_heads`, {heads}.")
        if absent := [layer for layer in self.attention_layers if not 0 <= layer < self.num_hidden_layers]:
            raise ValueError(f"`attention_layers` names {absent}; expected 0 to {self.num_hidden_layers - 1}.")

    def source_config(self) -> PreTrainedConfig:
        """Build the transformer's own configuration."""
        return AutoConfig.for_model(**self.source)


__all__ = ["ATTENTION_NAMES", "DiscreteMamba2Config"]

"""
What MAC must know of a causal language model of transformers to run it under a head of its own.

For each kind of language model this file says which class serves it, how its embeddings and logits are scaled, what a
step on a cache must be given, and how faults of transformers are worked around. `TESTED` names every kind for which
tests show that its logits are those of its own causal model, that a cache, padding, a forked state and saving change
nothing, and that LoRA learns. Any other kind is refused by name, and so are variants of these kinds that would be
wrong. A fault of this sort raises no error and writes plausible captions, and a check at first use would find it with
some weights, lengths and windows and not with others.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, LinearAttentionCacheLayerMixin
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, torch_compilable_check

from .modeling_discrete_mamba2_mac import DiscreteMamba2Model
from .modeling_mamba2_mac import Mamba2MacModel
from .modeling_mamba_mac import FalconMambaMacModel, MambaMacModel


@dataclass(frozen=True)
class Kind:
    """
    What is special about a kind of language model.

    Args:
        model_class: Class of this package that serves it; None for that of transformers.
        states_only: Whether it has states and no attention. It then takes no positions, and its mask is as long as the
            tokens of the call, which are multiplied by it.
        reads_on: Whether several tokens may follow a cache in one call.
        packs: Whether it keeps packed sequences apart by `seq_idx`.
        head_bias: Whether its language-modelling head has a bias.
        no_lora: Reasons, by a part of modules' names, why LoRA must leave these modules alone.
    """

    model_class: type[PreTrainedModel] | None = None
    states_only: bool = False
    reads_on: bool = True
    packs: bool = False
    head_bias: bool = False
    no_lora: dict[str, str] = field(default_factory=dict)


PLAIN = Kind()
TESTED = {
    "mamba2": Kind(Mamba2MacModel, states_only=True, packs=True),
    "mamba": Kind(MambaMacModel, states_only=True, packs=True),
    "falcon_mamba": Kind(FalconMambaMacModel, states_only=True, packs=True),
    # In transformers, Jamba's scan starts from a state of zeros when it is given more than one token, whatever the
    # cache holds.
    "jamba": Kind(
        reads_on=False, no_lora={"dt_proj": "its weight is read past an adapter, which would learn nothing"}
    ),
    "mac_discrete_mamba2": Kind(DiscreteMamba2Model),
    "phi": Kind(head_bias=True),
    "zamba2": Kind(
        no_lora={"shared_transformer": "several layers share its weights, but each would have an adapter of its own"}
    ),
} | dict.fromkeys(
    (
        "bamba", "cohere", "cohere2", "falcon_h1", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite",
        "granitemoehybrid", "lfm2", "llama", "mistral", "nemotron_h", "olmo2", "opt", "phi3", "qwen2", "qwen3",
        "qwen3_next", "smollm3", "stablelm",
    ),
    PLAIN,
)  # fmt: skip

REFUSED = {
    "recurrent_gemma": "it keeps its state in itself instead of a cache, which beams and batches would share",
}

LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}
ANY_STEP = (0.0, math.inf)


def kind_of(config: PreTrainedConfig) -> Kind:
    """
    Look up what is special about the kind of language model that `config` describes.

    Raises:
        ValueError: It is not among the tested kinds.
    """
    if config.model_type in TESTED:
        return TESTED[config.model_type]
    reason = REFUSED.get(config.model_type, "MAC has not been tested with it, and could be wrong without an error")
    raise ValueError(
        f"`text_config` is a {config.model_type!r} model: {reason}. Possible are {', '.join(sorted(TESTED))}."
    )


def check_language_model(config: PreTrainedConfig) -> None:
    """
    Refuse a language model that MAC cannot run.

    Raises:
        ValueError: It is not among the tested kinds, or a variant of one that would be wrong.
    """
    kind_of(config)
    if faults := list(find_faults(config)):
        raise ValueError(f"`text_config` is a {config.model_type!r} model that MAC cannot run: {'; '.join(faults)}.")


def find_faults(config: PreTrainedConfig) -> Iterator[str]:
    """Find what in the fields of a tested kind would make it fail, or be wrong without an error."""
    if config.model_type == "mac_discrete_mamba2" and config.attention_layers:
        yield from find_faults(config.source_config())  # these layers are still those of the transformer
    if kind_of(config).model_class is not None:
        return
    width = getattr(config, "word_embed_proj_dim", config.hidden_size)
    if width != config.hidden_size:
        yield (
            f"its embeddings are {width} wide (`word_embed_proj_dim`) and its layers {config.hidden_size} "
            "(`hidden_size`), but the connector and the head need one width"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer = [fields for fields in rope.values() if isinstance(fields, Mapping)]
    for name in sorted(LENGTH_DEPENDENT_ROPE & {fields.get("rope_type") for fields in (rope, *by_layer)}):
        yield (
            f"its positions (`rope_type` {name!r}) depend, beyond a length, on the longest text of a batch, so that a "
            "clip would get another caption in a batch than alone"
        )
    if not any(isinstance(layer, CacheLayerMixin) for layer in DynamicCache(config=config).layers):
        yield "none of its layers has attention, without which its cache in transformers fails"
    limit = tuple(getattr(config, "time_step_limit", None) or ANY_STEP)
    if limit != ANY_STEP:
        yield (
            f"its step sizes are limited to {limit} (`time_step_limit`), which transformers does when it reads a "
            "prompt and not when it writes"
        )


def build_language_model(config: PreTrainedConfig, audio_projections: Sequence[str] = ()) -> PreTrainedModel:
    """
    Build the language model without its head, with new weights.

    Mamba-1 and Mamba-2 run on the scans of this package, any other kind has its own layers from transformers.

    Args:
        config: Configuration of the language model.
        audio_projections: Projections of a Mamba-2 of which audio tokens have their own.

    Raises:
        ValueError: MAC cannot run it.
    """
    check_language_model(config)
    model_class = kind_of(config).model_class
    if audio_projections:
        return Mamba2MacModel(config, audio_projections)  # `MacConfig` refuses them for any other kind
    if model_class is not None:
        return model_class(config)
    model = AutoModel.from_config(config)
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            # In Zamba2 and Nemotron-H, transformers keeps step sizes above `time_step_min` when it reads a prompt and
            # not when it writes. The code that their authors published never does.
            module.time_step_limit = ANY_STEP
    return model


def head_has_bias(config: PreTrainedConfig) -> bool:
    """Tell whether the head of this language model adds a bias."""
    if config.model_type == "mac_discrete_mamba2":  # it has the head of the transformer that it came from
        config = config.source_config()
    return kind_of(config).head_bias


def finish_logits(config: PreTrainedConfig, logits: torch.Tensor) -> torch.Tensor:
    """Scale or limit the head's product, (..., vocabulary), as transformers' causal model does after its head."""
    match config.model_type:
        case "cohere" | "cohere2":
            return logits * config.logit_scale
        case "granite" | "granitemoehybrid":
            return logits / config.logits_scaling
        case "falcon_h1":
            return logits * config.lm_head_multiplier
        case "gemma2" | "gemma3_text" if config.final_logit_softcapping is not None:
            cap = config.final_logit_softcapping
            return torch.tanh(logits / cap) * cap
    return logits


def read(
    model: PreTrainedModel,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    cache: Cache | None,
    **kwargs: Any,
) -> ModelOutput:
    """
    Run a language model of `build_language_model`.

    Args:
        model: Language model without its head.
        inputs_embeds: Embeddings of the tokens, (batch, length, width), as the model's embedding gives them.
        attention_mask: Mask of the tokens, (batch, tokens in the cache + length), 0 at padding.
        position_ids: Positions of the tokens, (batch, length); if None, they are counted from the mask or the cache.
        cache: Cache that a previous call returned.
        kwargs: Further arguments of the model's forward.

    Returns:
        Output of the model, as its forward gives it.

    Raises:
        ValueError: The model would read packed sequences as one, or there is padding after a cache that holds states.
    """
    kind, length = kind_of(model.config), inputs_embeds.shape[1]
    if kwargs.get("seq_idx") is not None and not kind.packs:
        raise ValueError(
            f"`seq_idx` came, but a {model.config.model_type!r} language model would read packed sequences as one."
        )
    if model.config.model_type == "falcon_h1":  # it scales embeddings that it looks up, and none that it is given
        inputs_embeds = inputs_embeds * model.config.embedding_multiplier
    if not kind.states_only:
        if position_ids is None:
            position_ids = count_positions(inputs_embeds, attention_mask, cache)
        kwargs["position_ids"] = position_ids
    several_on_states = length > 1 and cache is not None and holds_states(cache)
    if several_on_states and attention_mask is not None:
        check_padding(attention_mask[:, -length:])
    if kind.states_only and attention_mask is not None:
        attention_mask = attention_mask[:, -length:]
    if several_on_states and not kind.reads_on:
        attention_mask = None if kind.states_only else attention_mask  # all ones, as checked above
        return read_token_by_token(model, inputs_embeds, attention_mask, cache, **kwargs)
    return model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, cache=cache, return_dict=True, **kwargs)


def count_positions(
    inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None, cache: Cache | None
) -> torch.Tensor | None:
    """
    Count the positions of the tokens, (batch, length), leaving padding out.

    On a cache this is needed, since some models, such as Bamba, would count from zero again.

    Returns:
        The positions, or None where they run from zero and every model counts them itself.
    """
    length = inputs_embeds.shape[1]
    if attention_mask is not None and attention_mask.dim() == 2:
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
    if cache is None:
        return None
    start = cache.get_seq_length()
    return torch.arange(start, start + length, device=inputs_embeds.device).unsqueeze(0)


def holds_states(cache: Cache) -> bool:
    """Tell whether the cache holds states of a scan or a convolution, which padding after them would change."""
    layers = [layer for layer in cache.layers if isinstance(layer, LinearAttentionCacheLayerMixin)]
    return any(filled for layer in layers for filled in layer.has_previous_state.values())


def check_padding(attention_mask: torch.Tensor) -> None:
    """
    Refuse a mask, (batch, length), with padding after a kept state.

    At padding the state would decay, and the convolution would see zeros in place of the last tokens.
    """
    torch_compilable_check(
        attention_mask.all(),
        lambda: (
            "`attention_mask` has padding after the tokens of `cache`, whose states it would change: continue it with "
            "texts of one length at a time or, to score texts padded on the right, without a mask."
        ),
    )


def read_token_by_token(
    model: PreTrainedModel,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cache: Cache,
    position_ids: torch.Tensor | None = None,
    **kwargs: Any,
) -> ModelOutput:
    """Do the work of `read` one token at a time, for a model that goes on from a cache in no other way."""
    if kwargs.get("output_attentions"):
        raise ValueError(
            f"A {model.config.model_type!r} language model reads a cache on token by token: its attention matrices "
            "cannot be put together. Leave out `output_attentions`, or the cache."
        )
    length = inputs_embeds.shape[1]
    kwargs |= {"use_cache": True, "return_dict": True}
    outputs = []
    for token in range(length):
        here = slice(token, token + 1)
        if position_ids is not None:
            kwargs["position_ids"] = position_ids[:, here]
        if attention_mask is not None:
            end = attention_mask.shape[1] - length + token + 1
            kwargs["attention_mask"] = attention_mask[:, :end]
        outputs.append(model(inputs_embeds=inputs_embeds[:, here], cache=cache, **kwargs))
    whole = outputs[-1]
    whole.last_hidden_state = torch.cat([output.last_hidden_state for output in outputs], dim=1)
    if whole.hidden_states is not None:
        layers = zip(*(output.hidden_states for output in outputs), strict=True)
        whole.hidden_states = tuple(torch.cat(layer, dim=1) for layer in layers)
    return whole


__all__ = [
    "TESTED",
    "build_language_model",
    "check_language_model",
    "finish_logits",
    "head_has_bias",
    "kind_of",
    "read",
]

"""
Conversion of a pretrained causal language model to the configuration and weights of MAC's `language_model`.

It takes Mamba-1 and Mamba-2 as state-spaces released them, and the causal language models of transformers. The weights
of the head become those of MAC's `lm_head`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Mamba2Config, MambaConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from .weight_files_mac import config_folder, load_strictly, read_config, read_weights


GPT_NEOX_TOKENS = 50277  # entries of the tokenizer that Mamba and Pythia share; the rows above it are padding
GPT_NEOX_MAX_ROWS = 50688  # rows of Pythia-12b, which pads this vocabulary most

# The defaults of mamba-ssm's Mamba-2 layer, for a config.json that leaves these out.
MAMBA2_DEFAULTS = {"d_state": 128, "headdim": 64, "ngroups": 1, "expand": 2}

# Names of the layers' arguments in mamba-ssm and in `MambaConfig` or `Mamba2Config`. A model that sets an argument
# that is not listed would need another mixer, and is refused.
SHARED_FIELDS = {
    "bias": "use_bias",
    "conv_bias": "use_conv_bias",
    "d_conv": "conv_kernel",
    "d_state": "state_size",
    "dt_init_floor": "time_step_floor",
    "dt_max": "time_step_max",
    "dt_min": "time_step_min",
    "expand": "expand",
}
MAMBA1_FIELDS = SHARED_FIELDS | {
    "dt_init": "time_step_init_scheme",
    "dt_rank": "time_step_rank",
    "dt_scale": "time_step_scale",
}
MAMBA2_FIELDS = SHARED_FIELDS | {
    "chunk_size": "chunk_size",
    "dt_limit": "time_step_limit",
    "headdim": "head_dim",
    "ngroups": "n_groups",
}


def language_model_config(path: Path) -> tuple[PreTrainedConfig, int | None]:
    """
    Read the configuration of a language model on disk.

    Returns:
        The configuration, and the number of the vocabulary's rows that hold tokens, or None if it is not known.

    Raises:
        ValueError: There is no config.json, or it describes no model that can be loaded.
    """
    config = read_config(path)
    if not config:
        raise ValueError(f"{config_folder(path)} holds no config.json to say which language model {path} is.")
    # A config.json in the form of state-spaces is not given to AutoConfig, which would fill its gaps with the defaults
    # of another size. Models that state-spaces converted to transformers have the keys of both forms; their weights
    # are in that of transformers, so `hidden_size` decides.
    if "ssm_cfg" in config and "hidden_size" not in config:
        return state_spaces_config(config), config["vocab_size"]
    if "model_type" not in config:
        raise ValueError(f"{config_folder(path)}/config.json has neither `model_type` (transformers) nor `ssm_cfg`.")
    text_config = AutoConfig.from_pretrained(config_folder(path), trust_remote_code=False)
    neox = text_config.model_type in ("mamba", "mamba2", "gpt_neox") and text_config.vocab_size <= GPT_NEOX_MAX_ROWS
    return text_config, GPT_NEOX_TOKENS if neox else None


def state_spaces_config(original: Mapping[str, Any]) -> MambaConfig | Mamba2Config:
    """
    Build transformers' configuration from a config.json of state-spaces; what it leaves out is as in mamba-ssm.

    Raises:
        ValueError: Its layers are neither Mamba-1 nor Mamba-2, or have an option that those of transformers lack.
    """
    ssm = dict(original.get("ssm_cfg") or {})
    layer = ssm.pop("layer", "Mamba1")
    ssm.pop("use_fast_path", None)  # this chose the kernels and says nothing of the weights
    if layer not in ("Mamba1", "Mamba2"):
        raise ValueError(
            f"The language model's layers are {layer}; expected Mamba1 or Mamba2 (`ssm_cfg` of its config.json)."
        )
    if absent := [name for name in ("d_model", "n_layer", "vocab_size") if name not in original]:
        raise ValueError(f"The language model's config.json lacks {', '.join(absent)}.")
    fields = MAMBA1_FIELDS if layer == "Mamba1" else MAMBA2_FIELDS
    unsupported = sorted(set(ssm) - set(fields)) + [
        name for name in ("attn_layer_idx", "d_intermediate") if original.get(name)
    ]
    if not original.get("rms_norm", True):
        unsupported.append("rms_norm = false")
    if unsupported:
        raise ValueError(f"The language model's config.json sets {', '.join(unsupported)}: not a plain {layer}.")
    multiple = original.get("pad_vocab_size_multiple", 8)
    common = {
        "hidden_size": original["d_model"],
        "num_hidden_layers": original["n_layer"],
        "vocab_size": -(-original["vocab_size"] // multiple) * multiple,
        "residual_in_fp32": original.get("residual_in_fp32", True),
        "tie_word_embeddings": original.get("tie_embeddings", True),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
    }
    if layer == "Mamba1":
        return MambaConfig(**common, **{fields[name]: value for name, value in ssm.items()})
    ssm = MAMBA2_DEFAULTS | ssm
    num_heads = ssm["expand"] * original["d_model"] // ssm["headdim"]
    return Mamba2Config(**common, num_heads=num_heads, **{fields[name]: value for name, value in ssm.items()})


def first_free_row(config: PreTrainedConfig, num_tokens: int | None) -> int:
    """Return the first row of the vocabulary that no token uses; a ValueError says that none is known."""
    if num_tokens is None or num_tokens >= config.vocab_size:
        raise ValueError(
            f"Which of the {config.vocab_size} rows of this {config.model_type!r} model's vocabulary `<|audio|>` may "
            "take is not known: pass `audio_token_id`, a row that its tokenizer never writes."
        )
    return num_tokens


def load_language_model(path: Path, config: PreTrainedConfig) -> tuple[dict[str, torch.Tensor], bool]:
    """
    Read a causal language model's weights in float32.

    Returns:
        The weights under the names of MAC, and whether the head shares the matrix of the embedding.

    Raises:
        ValueError: transformers has no causal language model of this kind; a weight is missing, left over or of
            another shape; or the head differs from the embedding although the configuration ties the two.
    """
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{path} is a {config.model_type!r} model; expected a causal language model of transformers.")
    weights = read_weights(path)
    if config.model_type in ("mamba", "mamba2"):  # the one name that differs in the state-spaces form
        weights = {name.replace("backbone.embedding.", "backbone.embeddings."): weights[name] for name in weights}
    model = load_strictly(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config, weights, str(path))
    tied = bool(config.tie_word_embeddings)
    if tied and model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        raise ValueError(f"{path} holds a head that differs from the embedding, but its config.json ties the two.")
    return mac_state_dict(model, tied), tied


def mac_state_dict(model: PreTrainedModel, tied: bool) -> dict[str, torch.Tensor]:
    """Rename a causal language model's weights as `MacForConditionalGeneration` has them, without a tied head."""
    head = model.get_output_embeddings()
    head_name = next(name for name, module in model.named_modules() if module is head)
    prefixes = {f"{head_name}.": "lm_head.", f"{model.base_model_prefix}.": "model.language_model."}
    renamed = {}
    for name, weight in model.state_dict().items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        renamed[prefixes.get(prefix, "") + name.removeprefix(prefix)] = weight
    if tied:
        del renamed["lm_head.weight"]
    return renamed


__all__ = ["first_free_row", "language_model_config", "load_language_model"]

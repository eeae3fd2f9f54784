"""A tiny configuration of every kind of language model that MAC has been tested with."""

from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig


def attention(**fields: Any) -> dict[str, Any]:
    return {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64} | fields


def mamba2_layers(**fields: Any) -> dict[str, Any]:
    sizes = {"n_heads": 8, "d_head": 8, "d_state": 16, "n_groups": 1, "chunk_size": 16}
    return {f"mamba_{name}": size for name, size in sizes.items()} | attention(**fields)


# What differs from 2 layers of width 32. Small windows, scales other than one: what is forgotten must show.
TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "bamba": mamba2_layers(attn_layer_indices=[1]),
    "cohere": attention(logit_scale=0.25),
    "cohere2": attention(logit_scale=0.25, sliding_window=16, layer_types=["sliding_attention", "full_attention"]),
    "falcon_h1": mamba2_layers(
        head_dim=8, mamba_d_ssm=64, embedding_multiplier=2.0, lm_head_multiplier=0.5, key_multiplier=0.7,
        ssm_multipliers=[0.5, 0.6, 0.7, 0.8, 0.9], ssm_in_multiplier=1.2,
    ),
    "falcon_mamba": {"state_size": 16, "time_step_rank": 4},
    "gemma2": attention(head_dim=8, sliding_window=16, final_logit_softcapping=5.0, attn_logit_softcapping=10.0),
    "gemma3_text": attention(
        head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"], final_logit_softcapping=5.0
    ),
    "gpt2": {"n_head": 4, "n_inner": 64},
    "gpt_neox": {"num_attention_heads": 4, "intermediate_size": 64},
    "granite": attention(embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.8),
    "granitemoehybrid": mamba2_layers(
        layer_types=["mamba", "attention"], shared_intermediate_size=64, num_local_experts=4, num_experts_per_tok=2,
        embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.8, attention_multiplier=0.3,
    ),
    "jamba": attention(
        attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, num_experts=4,
        num_experts_per_tok=2, mamba_d_state=16, mamba_dt_rank=4,
    ),
    "lfm2": attention(layer_types=["conv", "full_attention"]),
    "llama": attention(),
    "mac_discrete_mamba2": {},
    "mamba": {"state_size": 16, "time_step_rank": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1},
    "mistral": attention(sliding_window=16),
    "nemotron_h": attention(
        layers_block_type=["mamba", "attention"], head_dim=8, mamba_num_heads=8, mamba_head_dim=8, ssm_state_size=16,
        n_groups=1, chunk_size=16,
    ),
    "olmo2": attention(),
    "opt": {"num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "phi": {"num_attention_heads": 4, "intermediate_size": 64},
    "phi3": attention(sliding_window=16),
    "qwen2": attention(),
    "qwen3": attention(head_dim=8),
    "qwen3_next": attention(
        head_dim=8, layer_types=["linear_attention", "full_attention"], linear_key_head_dim=8, linear_value_head_dim=8,
        linear_num_key_heads=2, linear_num_value_heads=4, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32, shared_expert_intermediate_size=32, decoder_sparse_step=1,
    ),
    "smollm3": attention(),
    "stablelm": attention(),
    "zamba2": attention(
        num_key_value_heads=4, num_hidden_layers=4,
        layers_block_type=["linear_attention", "hybrid", "linear_attention", "hybrid"], mamba_d_state=16,
        n_mamba_heads=8, chunk_size=16, use_mem_rope=True,
    ),
}  # fmt: skip


def text_config(model_type: str, **fields: Any) -> PreTrainedConfig:
    if model_type == "mac_discrete_mamba2":  # its sizes are those of the transformer that it came from
        source = text_config("phi", **fields).to_dict()
        return AutoConfig.for_model(model_type, source=source, attention_layers=[0], state_size=16)
    common = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3}
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": False}
    return AutoConfig.for_model(model_type, **common | tokens | TEXT_CONFIGS[model_type] | fields)

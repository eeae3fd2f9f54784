"""Tiny checkpoints in the forms in which EAT and Mamba-2 are released."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Mamba2Config, Mamba2ForCausalLM


FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    """Weights, inputs and outputs of a small EAT, made by running upstream's own code."""
    return load_file(FIXTURES / "eat_tiny.safetensors")


def without_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def released_form(original: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """fairseq's names -> those of the safetensors on the Hub."""
    released = {}
    for name, tensor in original.items():
        if ".decoder." in name:
            continue
        name = name.removeprefix("model.").replace("modality_encoders.IMAGE.context_encoder.norm", "pre_norm")
        released["model." + name.replace("modality_encoders.IMAGE.", "")] = tensor
    return released


@pytest.fixture
def eat_weights(golden) -> dict[str, dict[str, torch.Tensor]]:
    """The golden weights in every released form."""
    pretrain, finetune = without_prefix(golden, "sd.pretrain."), without_prefix(golden, "sd.finetune.")
    return {
        "original_pretrain": pretrain,
        "original_finetune": finetune,
        "released_pretrain": released_form(pretrain),
        "released_finetune": released_form(finetune),
    }


@pytest.fixture
def eat_folder(eat_weights, tmp_path) -> Path:
    """The released form of the fine-tuned golden model."""
    folder = tmp_path / "eat"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "eat", "embed_dim": 32, "depth": 2, "num_heads": 2}))
    save_file(eat_weights["released_finetune"], folder / "model.safetensors")
    return folder


@pytest.fixture
def mamba2() -> Mamba2ForCausalLM:
    """A small Mamba-2 with 50 tokens and 14 padding rows, and its logits."""
    torch.manual_seed(0)
    config = Mamba2Config(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_heads=8, head_dim=8, state_size=16, n_groups=1,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=0, chunk_size=16,
    )  # fmt: skip
    return Mamba2ForCausalLM(config).eval()


@pytest.fixture
def mamba2_folder(mamba2, tmp_path) -> Path:
    """The state-spaces form of that model."""
    folder = tmp_path / "mamba2"
    folder.mkdir()
    config = {
        "d_model": 32, "d_intermediate": 0, "n_layer": 2, "vocab_size": 50, "attn_layer_idx": [], "attn_cfg": {},
        "ssm_cfg": {"layer": "Mamba2", "headdim": 8, "d_state": 16, "chunk_size": 16}, "rms_norm": True,
        "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 16, "tie_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    weights = {name.replace("embeddings", "embedding"): tensor for name, tensor in mamba2.state_dict().items()}
    torch.save(weights, folder / "pytorch_model.bin")
    return folder

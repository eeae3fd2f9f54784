"""Tiny checkpoints in the forms in which EAT and Mamba-2 are released; tiny models of our own and their inputs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from text_configs import text_config
from transformers import Mamba2Config, Mamba2ForCausalLM

from modeling_mac import EatConfig, MacConfig, MacForConditionalGeneration


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


AUDIO_TOKEN = 63


@pytest.fixture
def make_mac() -> Callable[..., MacForConditionalGeneration]:
    """
    Makes a tiny random MAC on a language model of this type; keyword arguments are further fields of its config.

    8 audio tokens a window of 128 frames. Large weights and a long memory make its output depend on all of its input.
    """

    def make(model_type: str = "mamba2", **fields: Any) -> MacForConditionalGeneration:
        torch.manual_seed(0)
        audio = EatConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, window_frames=128
        )
        fields = {"initializer_range": 1.0, "tie_word_embeddings": False} | fields
        config = MacConfig(
            audio_config=audio, text_config=text_config(model_type), audio_token_id=AUDIO_TOKEN, **fields
        )
        model = MacForConditionalGeneration(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):
                torch.nn.init.constant_(parameter, -4.0)
        # No end token: every caption is as long as allowed, so that all of its tokens are compared.
        model.generation_config.update(
            max_new_tokens=8, pad_token_id=0, eos_token_id=None, bos_token_id=None, suppress_tokens=[AUDIO_TOKEN]
        )
        return model

    return make


@pytest.fixture
def mac(make_mac) -> MacForConditionalGeneration:
    return make_mac()


@pytest.fixture
def make_inputs() -> Callable[..., dict[str, torch.Tensor]]:
    """Makes the inputs of clips with so many windows each: audio tokens, then a prompt; padded on the left."""

    def make(*windows: int, prompt: tuple[int, ...] = (5, 6, 7), tokens: int = 8) -> dict[str, torch.Tensor]:
        longest = max(windows) * tokens + len(prompt)
        rows = [[AUDIO_TOKEN] * tokens * count + list(prompt) for count in windows]
        generator = torch.Generator().manual_seed(1)
        return {
            "input_ids": torch.tensor([[0] * (longest - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
            "input_features": torch.randn(sum(windows), 128, 128, generator=generator),
            "audio_num_windows": torch.tensor(windows),
        }

    return make


@pytest.fixture
def take_clip() -> Callable[[dict[str, torch.Tensor], int], dict[str, torch.Tensor]]:
    """The inputs of one clip of a batch, without its padding."""

    def take(inputs: dict[str, torch.Tensor], clip: int) -> dict[str, torch.Tensor]:
        counts = inputs["audio_num_windows"]
        start = int(counts[:clip].sum())
        real = inputs["attention_mask"][clip].bool()
        return {
            "input_ids": inputs["input_ids"][clip : clip + 1, real],
            "attention_mask": inputs["attention_mask"][clip : clip + 1, real],
            "input_features": inputs["input_features"][start : start + int(counts[clip])],
            "audio_num_windows": counts[clip : clip + 1],
        }

    return take

"""The models of the speed table, of one size and with random weights, and the floor: the matrix products alone."""

import contextlib
from collections.abc import Callable, Iterator

import peft
import torch
from torch import nn
from torch._inductor import config as inductor_config
from transformers import GPTNeoXConfig, Mamba2Model

from modeling_mac import EatConfig, MacConfig, MacForConditionalGeneration, compile_decoding, modeling_mamba2_mac


# hidden size and layers of state-spaces/mamba2-NAME; "toy" is for tests.
SHAPES = {"toy": (64, 2), "130m": (768, 24), "370m": (1024, 48), "780m": (1536, 48), "1.3b": (2048, 48),
          "2.7b": (2560, 64)}  # fmt: skip
VOCABULARY, AUDIO_TOKEN = 50288, 50277
LORA_TARGETS = {"mamba2": ["in_proj", "out_proj"], "gpt_neox": ["query_key_value", "dense", "dense_h_to_4h",
                "dense_4h_to_h"]}  # fmt: skip


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Run on our own scan where mamba-ssm's kernels are installed, too."""
    chosen = modeling_mamba2_mac.kernels_for
    modeling_mamba2_mac.kernels_for = lambda tensor: None
    try:
        yield
    finally:
        modeling_mamba2_mac.kernels_for = chosen


def add_lora(model: MacForConditionalGeneration, rank: int) -> MacForConditionalGeneration:
    """LoRA on every projection of the language model, all else frozen."""
    targets = LORA_TARGETS[model.config.text_config.model_type]
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    peft.inject_adapter_in_model(config, model.model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return model


class PortableMac(MacForConditionalGeneration):
    """The same model, which never takes the CUDA kernels."""

    forward = without_kernels()(MacForConditionalGeneration.forward)


def make_config(size: str, model_type: str) -> MacConfig:
    """EAT-base before a Mamba-2, or before a GPT-NeoX with half as many layers, each of twice the weights."""
    width, layers = SHAPES[size]
    ids = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    tied = {"tie_word_embeddings": True}
    if model_type == "mamba2":
        text = {"hidden_size": width, "num_hidden_layers": layers, "num_heads": width // 32, "n_groups": 1}
    else:
        text = GPTNeoXConfig(
            hidden_size=width, num_hidden_layers=layers // 2, num_attention_heads=width // 64,
            intermediate_size=4 * width, max_position_embeddings=16384,
        ).to_dict()  # fmt: skip
    toy = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    audio = EatConfig(**toy if size == "toy" else {})
    text |= {**ids, **tied, "model_type": model_type}
    return MacConfig(audio_config=audio, text_config=text, audio_token_id=AUDIO_TOKEN, **tied)


def build(size: str, variant: str, device: str, dtype: torch.dtype) -> MacForConditionalGeneration:
    """
    One model of the table.

    Args:
        variant: "ours", "compiled" (the same, its weights packed once), "portable" (without the CUDA kernels), "graph"
            (with tokens decoded as a CUDA graph), "stock" (the same on transformers' own Mamba-2) or "gpt_neox".
    """
    torch.manual_seed(0)
    model_class = PortableMac if variant == "portable" else MacForConditionalGeneration
    model = model_class(make_config(size, "gpt_neox" if variant == "gpt_neox" else "mamba2"))
    if variant == "stock":
        language_model = Mamba2Model(model.config.text_config)
        language_model.load_state_dict(model.model.language_model.state_dict(), assign=True)
        model.model.language_model = language_model
        head = nn.Linear(*reversed(model.lm_head.weight.shape), bias=False, device="meta")
        head.weight = language_model.embeddings.weight
        model.lm_head = head
    model.generation_config.update(eos_token_id=None, pad_token_id=0)  # captions of one length
    model = cast(model, dtype).to(device).eval()
    if variant == "compiled":
        inductor_config.freezing = True
        model.forward = torch.compile(model.forward)
    if variant == "graph":
        compile_decoding(model)
    return model


def cast(model: MacForConditionalGeneration, dtype: torch.dtype) -> MacForConditionalGeneration:
    """Change the dtype of a model's weights in place, but for those that loading keeps in float32, too."""
    for name, parameter in model.named_parameters():
        if not name.endswith(("A_log", "dt_bias")):
            parameter.data = parameter.data.to(dtype)
    return model


def moved_bytes(model: MacForConditionalGeneration) -> Callable[[], object]:
    """A copy that reads and writes, together, as many bytes as the weights have that a token reads."""
    weights = [model.lm_head.weight, *model.model.language_model.layers.parameters()]
    half = sum(weight.nbytes for weight in weights) // 2
    source, target = (torch.empty(half, dtype=torch.uint8, device=model.device) for _ in range(2))
    return lambda: target.copy_(source)


def floor(model: MacForConditionalGeneration, batch: int, length: int) -> Callable[[], None]:
    """The matrix products of our language model over (batch, length) tokens, with the head on the last of each."""
    head = model.lm_head.weight
    inputs = {
        width: torch.randn(batch, length, width, dtype=head.dtype, device=head.device)
        for width in (head.shape[1], 2 * head.shape[1])
    }
    weights = [
        weight for layer in model.model.language_model.layers
        for weight in (layer.mixer.in_proj.weight, layer.mixer.out_proj.weight)
    ]  # fmt: skip

    def run() -> None:
        for weight in weights:
            nn.functional.linear(inputs[weight.shape[1]], weight)
        nn.functional.linear(inputs[head.shape[1]][:, -1:], head)

    return run

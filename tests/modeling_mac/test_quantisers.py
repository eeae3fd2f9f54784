"""
Which layers transformers' quantisers convert: every projection of the language model, none skipped in silence.

Where a quantiser's library is missing, its layer is a stand-in, and transformers' own code still chooses what it
replaces: that code is what skips a subclass of `nn.Linear`, or a name that is taken for a head.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BitNetQuantConfig,
    FbgemmFp8Config,
    FineGrainedFP8Config,
    HiggsConfig,
    MetalConfig,
)
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

from modeling_mac import SsambaConfig, SsambaModel


class StandIn(nn.Module):
    """A quantiser's layer whose library is missing."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1), requires_grad=False)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    """Put a library of this name, with these members, in place of the missing one."""
    parent = None
    for end in range(1, len(parts := name.split(".")) + 1):
        path = ".".join(parts[:end])
        module = ModuleType(path)
        monkeypatch.setitem(sys.modules, path, module)
        if parent is not None:
            setattr(parent, parts[end - 1], module)
        parent = module
    vars(sys.modules[name]).update(members)


def integration(name: str) -> ModuleType:
    return importlib.import_module(f"transformers.integrations.{name}")


def bitsandbytes(monkeypatch: pytest.MonkeyPatch, method: str) -> Callable:
    layers = SimpleNamespace(nn=SimpleNamespace(Linear8bitLt=StandIn, Linear4bit=StandIn))
    monkeypatch.setattr(integration("bitsandbytes"), "bnb", layers, raising=False)
    config = SimpleNamespace(
        quantization_method=lambda: method, llm_int8_has_fp16_weight=False, llm_int8_threshold=6.0,
        bnb_4bit_compute_dtype=None, bnb_4bit_use_double_quant=False, bnb_4bit_quant_type="nf4",
        bnb_4bit_quant_storage=None,
    )  # fmt: skip
    return lambda model, skip: integration("bitsandbytes").replace_with_bnb_linear(model, skip, config)


def by_config(name: str, function: str, config: Any) -> Callable[[pytest.MonkeyPatch], Callable]:
    """A quantiser whose layers transformers holds itself."""
    return lambda monkeypatch: (
        lambda model, skip: getattr(integration(name), function)(
            model, modules_to_not_convert=skip, quantization_config=config
        )
    )


def fbgemm(monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setattr(integration("fbgemm_fp8"), "get_quantize_fp8_per_row", lambda: None)
    return by_config("fbgemm_fp8", "replace_with_fbgemm_fp8_linear", FbgemmFp8Config())(monkeypatch)


def eetq(monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setattr(integration("hub_kernels"), "get_kernel", lambda *args, **kwargs: None)
    monkeypatch.setattr(integration("eetq"), "EetqLinear", StandIn)
    return lambda model, skip: integration("eetq").replace_with_eetq_linear(model, skip)


def quanto(monkeypatch: pytest.MonkeyPatch) -> Callable:
    kinds = dict.fromkeys(("qfloat8", "qint2", "qint4", "qint8"))
    stand_in(monkeypatch, "optimum.quanto", QLinear=StandIn, QLayerNorm=StandIn, **kinds)
    config = SimpleNamespace(weights="int8", activations=None)
    return lambda model, skip: integration("quanto").replace_with_quanto_layers(model, config, skip)


def higgs(monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setattr(integration("higgs"), "HiggsLinear", StandIn)
    return by_config("higgs", "replace_with_higgs_linear", HiggsConfig())(monkeypatch)


def gguf(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """A file that holds every weight but the head in blocks of one type."""
    utils = importlib.import_module("transformers.integrations.gguf.utils")
    monkeypatch.setattr(utils, "GgufLinear", StandIn)
    monkeypatch.setattr(utils, "GgufEmbedding", StandIn)
    kernel = SimpleNamespace(supports=lambda ggml_type: True)

    def replace(model: nn.Module, skip: list[str]) -> None:
        plan = {name: 8 for name, _ in model.named_parameters() if name.removesuffix(".weight") not in skip}
        utils.replace_with_gguf_modules(model, plan, kernel)

    return replace


def nvfp4(monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setattr(integration("nvfp4"), "NVFP4Linear", StandIn)
    return lambda model, skip: integration("nvfp4").replace_with_nvfp4_linear(model, skip)


QUANTISERS: dict[str, Callable[[pytest.MonkeyPatch], Callable]] = {
    "bitsandbytes, 8 bits": lambda monkeypatch: bitsandbytes(monkeypatch, "llm_int8"),
    "bitsandbytes, 4 bits": lambda monkeypatch: bitsandbytes(monkeypatch, "nf4"),
    "fine-grained fp8": by_config("finegrained_fp8", "replace_with_fp8_linear", FineGrainedFP8Config()),
    "bitnet": by_config("bitnet", "replace_with_bitnet_linear", BitNetQuantConfig()),
    "metal": by_config("metal_quantization", "replace_with_metal_linear", MetalConfig(group_size=32)),
    "fbgemm fp8": fbgemm,
    "eetq": eetq,
    "quanto": quanto,
    "higgs": higgs,
    "gguf": gguf,
    "nvfp4": nvfp4,
}
TEXTS = ("mamba2", "mamba", "gpt_neox", "bamba")


def projections(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}


@pytest.mark.parametrize("model_type", TEXTS)
@pytest.mark.parametrize("name", QUANTISERS)
def test_a_quantiser_converts_all_but_the_head(make_mac, monkeypatch, name: str, model_type: str):
    """What stays is what transformers itself leaves out of any causal model, as `from_pretrained` asks for it."""
    for tied in (False, True):
        model = make_mac(model_type, tie_word_embeddings=tied)
        layers = {layer: model.get_submodule(layer) for layer in projections(model)}
        skipped = get_keys_to_not_convert(model) + list(model._keep_in_fp32_modules or [])
        QUANTISERS[name](monkeypatch)(model, skipped)
        left = {layer for layer in layers if model.get_submodule(layer) is layers[layer]}
        if name == "nvfp4":  # made for layers without a bias, of sizes that are multiples of 16
            left = {layer for layer in left if layers[layer].bias is None and layers[layer].in_features % 16 == 0
                    and layers[layer].out_features % 16 == 0}  # fmt: skip
        assert left <= {"lm_head"}, f"{name} skips {sorted(left - {'lm_head'})}"


@pytest.mark.parametrize("model_type", TEXTS)
def test_quantisers_that_go_by_names_see_all(make_mac, monkeypatch, model_type: str):
    """hqq collects tags; torchao asks for `nn.Linear` and a `weight`; compressed-tensors for the type's name."""
    model = make_mac(model_type)
    monkeypatch.setattr(integration("hqq"), "is_hqq_available", lambda: True)
    stand_in(monkeypatch, "hqq.core.quantize", HQQLinear=StandIn)
    stand_in(monkeypatch, "torchao.quantization", FqnToConfig=StandIn, fqn_matches_fqn_config=None)
    tags = integration("hqq").get_linear_tags(model)
    config = SimpleNamespace(include_input_output_embeddings=False, quant_type=None)
    torchao = SimpleNamespace(quantization_config=config, modules_to_not_convert=get_keys_to_not_convert(model))
    for layer in projections(model) - {"lm_head"}:
        assert integration("hqq").name_to_linear_tag(layer) in tags
        assert TorchAoHfQuantizer.param_needs_quantization(torchao, model, f"{layer}.weight")
        assert type(model.get_submodule(layer)).__name__ == "Linear"


@pytest.mark.parametrize("model_type", TEXTS)
@torch.no_grad()
def test_a_quantised_model_computes_what_it_did(make_mac, make_inputs, model_type: str):
    """In int8, whose layers have no weight to read a dtype from: Mamba-1 reads its step size through such a layer."""
    model, inputs = make_mac(model_type), make_inputs(2, 1)
    before = model(**inputs).logits
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert not projections(quantised)
    after = quantised(**inputs).logits
    assert not torch.equal(after, before)
    assert nn.functional.cosine_similarity(after.flatten(), before.flatten(), dim=0) > 0.98


@torch.no_grad()
def test_a_quantised_ssamba_computes_what_it_did():
    torch.manual_seed(0)
    tower = SsambaModel(SsambaConfig(hidden_size=32, num_hidden_layers=2, window_frames=128)).eval()
    windows = torch.randn(2, 128, 128)
    before = tower(windows).last_hidden_state
    after = torch.ao.quantization.quantize_dynamic(tower, {nn.Linear})(windows).last_hidden_state
    assert not torch.equal(after, before)
    assert nn.functional.cosine_similarity(after.flatten(), before.flatten(), dim=0) > 0.98

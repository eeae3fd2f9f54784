"""One token through a block in few operations: what the modules say, and the modules where there is more to them."""

import copy
import logging

import peft
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._inductor.exc import InvalidCxxCompiler
from transformers import DynamicCache, GPTNeoXConfig, GPTNeoXModel, Mamba2Config

from modeling_mac import compile_decoding, compiling_mac, decode_step_mac, int8_mac, modeling_mamba2_mac
from modeling_mac.cache_mac import StateCache
from modeling_mac.compiling_mac import has_compiler
from modeling_mac.decode_step_mac import COMPILED_ROWS, block_step
from modeling_mac.int8_mac import Int8Linear
from modeling_mac.modeling_mamba2_mac import Mamba2MacModel


SHAPES = [{}, {"n_groups": 1}, {"use_bias": True}, {"use_conv_bias": False}, {"time_step_limit": (0.01, 0.2)},
          {"conv_kernel": 2}, {"residual_in_fp32": False}]  # fmt: skip


def make_model(**changes) -> Mamba2MacModel:
    """A model with two blocks, none of its weights at its neutral start."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 16,
        "n_groups": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    model = Mamba2MacModel(Mamba2Config(**sizes | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def assert_same_cache(actual: DynamicCache, expected: DynamicCache) -> None:
    for layer, other in zip(actual.layers, expected.layers, strict=True):
        assert_same(layer.conv_states[0], other.conv_states[0])
        assert_same(layer.recurrent_states[0], other.recurrent_states[0])


@pytest.fixture
def model() -> Mamba2MacModel:
    return make_model()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(1, 40, (3, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def steps(monkeypatch) -> list[torch.Size]:
    """Shape of the input of every block that is run as a step."""
    shapes: list[torch.Size] = []

    def spy(hidden_states, *others):
        shapes.append(hidden_states.shape)
        return block_step(hidden_states, *others)

    monkeypatch.setattr(decode_step_mac, "block_step", spy)
    return shapes


def read_and_decode(model: Mamba2MacModel, ids: torch.Tensor):
    """The outputs of the last three tokens, (batch, 3, width), each decoded alone, and the cache after them."""
    cache = model(ids[:, :-3], use_cache=True).cache
    outputs = [decode(model, token, cache) for token in ids[:, -3:].split(1, dim=1)]
    return torch.cat(outputs, dim=1), cache


def decode(model: Mamba2MacModel, ids: torch.Tensor, cache, **others) -> torch.Tensor:
    embeddings = model.get_input_embeddings()(ids)
    return model(inputs_embeds=embeddings, cache=cache, use_cache=True, **others).last_hidden_state


def by_modules(model: Mamba2MacModel, ids: torch.Tensor):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_mamba2_mac, "can_step", lambda *arguments: False)
        return read_and_decode(model, ids)


def as_int8(model: Mamba2MacModel) -> Mamba2MacModel:
    """A copy with projections of 8 bits."""
    model = copy.deepcopy(model)
    for block in model.layers:
        for name in ("in_proj", "out_proj"):
            layer = getattr(block.mixer, name)
            setattr(block.mixer, name, Int8Linear(layer))
            getattr(block.mixer, name).take(layer.weight)
    return model


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@torch.no_grad()
def test_a_step_is_what_the_modules_do(changes, ids, steps):
    model = make_model(**changes)
    output, cache = read_and_decode(model, ids)
    assert steps == 6 * [(3, 32)], "two blocks, three tokens"
    expected, expected_cache = by_modules(model, ids)
    assert len(steps) == 6
    assert_same(output, expected)
    assert_same_cache(cache, expected_cache)


@torch.inference_mode()
def test_with_8_bits_it_is_what_the_modules_do(model, ids, steps, monkeypatch):
    rounded = as_int8(model)
    read_and_decode(rounded, ids)
    assert steps == [], "small layers are multiplied in float, and not by a step"
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    output, _ = read_and_decode(rounded, ids)
    assert len(steps) == 6
    expected, _ = by_modules(rounded, ids)
    torch.testing.assert_close(output, expected, rtol=0.02, atol=0.02)  # of bf16, in which few rows are multiplied


def test_what_it_returns_may_be_trained_on(model, ids, steps):
    """It computes in inference mode, but neither its output nor the cache are tensors that autograd would refuse."""
    with torch.no_grad():
        output, cache = read_and_decode(model, ids)
    assert len(steps) == 6
    states = [tensor for layer in cache.layers for tensor in (layer.conv_states[0], layer.recurrent_states[0])]
    assert not any(tensor.is_inference() for tensor in (output, *states))
    decode(model, ids[:, :1], cache).sum().backward()
    assert model.layers[0].mixer.in_proj.weight.grad.abs().max() > 0


@torch.no_grad()
def test_weights_may_change_between_tokens(model, ids, monkeypatch):
    """Nothing that was computed from them is kept."""
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    for changed in (model, as_int8(model)):
        cache = changed(ids, use_cache=True).cache
        before = decode(changed, ids[:, :1], copy.deepcopy(cache))
        for parameter in changed.layers.parameters():
            if parameter.dtype == torch.float32:
                parameter.data = 1.5 * parameter
        after = decode(changed, ids[:, :1], copy.deepcopy(cache))
        assert (after - before).abs().max() > 0.1
        with monkeypatch.context() as patch:
            patch.setattr(modeling_mamba2_mac, "can_step", lambda *arguments: False)
            expected = decode(changed, ids[:, :1], cache)
        torch.testing.assert_close(after, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "part", ["", "mixer", "norm", "mixer.norm", "mixer.conv1d", "mixer.in_proj", "mixer.out_proj"]
)
@torch.no_grad()
def test_hooks_are_called(part, model, ids, steps):
    calls = []
    model.layers[0].get_submodule(part).register_forward_hook(lambda *arguments: calls.append(1))
    read_and_decode(model, ids)
    assert steps == []
    # The weights of the convolution are read, and it is not called; accelerate, which hooks into it, is looked after.
    assert len(calls) == (0 if part == "mixer.conv1d" else 4)


@torch.no_grad()
def test_lora_is_honoured(model, ids, steps):
    config = peft.LoraConfig(r=2, target_modules=["in_proj"], init_lora_weights=False)
    adapted = peft.inject_adapter_in_model(config, copy.deepcopy(model)).eval()
    output, _ = read_and_decode(adapted, ids)
    assert steps == []
    assert (output - read_and_decode(model, ids)[0]).abs().max() > 1e-3


def test_all_else_goes_through_the_modules(model, ids, steps):
    token = ids[:, :1]
    read_and_decode(model, ids)  # with gradients
    with torch.no_grad():
        decode(model, token, StateCache(model.config))  # without a past
        with torch.autocast("cpu", torch.bfloat16):
            read_and_decode(model, ids)
        read_and_decode(copy.deepcopy(model).bfloat16(), ids)
        cache = model(ids, use_cache=True).cache
        decode(model, ids[:, :2], cache)  # two tokens
        decode(model, token, cache, seq_idx=torch.zeros(3, 1, dtype=torch.int32))
        hidden = model(inputs_embeds=model.embeddings(token), cache=cache, output_hidden_states=True).hidden_states
        assert len(hidden) == 3
        assert isinstance(model(inputs_embeds=model.embeddings(token), cache=cache, return_dict=False), tuple)
        assert steps == []
        decode(model, token, cache, attention_mask=torch.ones(3, 1), output_hidden_states=False)
        assert len(steps) == 2


@pytest.fixture
def rounded(model, monkeypatch) -> Mamba2MacModel:
    """A model whose blocks are multiplied in 8 bits, small as they are."""
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    torch._dynamo.reset()
    return as_int8(model)


def test_without_a_compiler_it_says_so(rounded, monkeypatch, caplog):
    def missing() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    with caplog.at_level(logging.WARNING):
        compile_decoding(rounded)
    assert "no C++ compiler" in caplog.text
    assert not rounded.decodes_compiled


def test_what_would_gain_nothing_is_refused(model):
    config = GPTNeoXConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    for other, reason in (
        (model, "no layers of 8 bits: round them"),
        (as_int8(model), r"too small or too odd to gain by it: \("),
        (as_int8(model).bfloat16(), "is torch.bfloat16 in this one: load it in float32"),
        (as_int8(model).to("meta"), "this one is on meta: put it on the CPU"),
        (GPTNeoXModel(config), "Only a Mamba-2 decodes as one piece, and there is none"),
    ):
        with pytest.raises(ValueError, match=reason):
            compile_decoding(other)


@torch.no_grad()
def test_all_blocks_and_batches_share_three_graphs(rounded, ids, monkeypatch):
    counter = CompileCounter()
    compiled = torch.compile(block_step, fullgraph=True, backend=counter)
    monkeypatch.setattr(decode_step_mac, "compiled_step", lambda: compiled)
    monkeypatch.setattr(compiling_mac, "has_compiler", lambda: True)
    expected, _ = read_and_decode(rounded, ids[:1])
    compile_decoding(rounded)
    for batch in (1, 3, 2, 1, 5, 8):
        output, _ = read_and_decode(rounded, ids[:1].repeat(batch, 1))
        torch.testing.assert_close(output, expected.repeat(batch, 1, 1), rtol=0.02, atol=0.02)
    assert 1 <= counter.frame_count <= 3


@torch.no_grad()
def test_beyond_the_limit_of_graphs_it_goes_on_uncompiled(rounded, ids, monkeypatch):
    """As it comes to where the number of threads changes again and again."""
    monkeypatch.setattr(compiling_mac, "has_compiler", lambda: True)
    real, counter = torch.compile, CompileCounter()
    monkeypatch.setattr(torch, "compile", lambda function, options, **kw: real(function, backend=counter, **kw))
    step = decode_step_mac.compiled_step.__wrapped__()
    monkeypatch.setattr(decode_step_mac, "compiled_step", lambda: step)
    expected, _ = read_and_decode(rounded, ids[:1])
    compile_decoding(rounded)
    with torch._dynamo.config.patch(recompile_limit=1):
        for batch in (1, 5):
            output, _ = read_and_decode(rounded, ids[:1].repeat(batch, 1))
            torch.testing.assert_close(output, expected.repeat(batch, 1, 1), rtol=0.02, atol=0.02)
    assert counter.frame_count == 1


@torch.no_grad()
def test_many_rows_are_not_compiled(rounded, ids, monkeypatch):
    monkeypatch.setattr(decode_step_mac, "compiled_step", lambda: pytest.fail("it was compiled"))
    monkeypatch.setattr(compiling_mac, "has_compiler", lambda: True)
    expected, _ = read_and_decode(rounded, ids[:1])
    compile_decoding(rounded)
    output, _ = read_and_decode(rounded, ids[:1].repeat(COMPILED_ROWS + 1, 1))
    torch.testing.assert_close(output, expected.repeat(COMPILED_ROWS + 1, 1, 1), rtol=0.02, atol=0.02)


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
@torch.no_grad()
def test_compiled_it_says_the_same(rounded, ids, monkeypatch):
    compiled, tokens = decode_step_mac.compiled_step(), []
    monkeypatch.setattr(decode_step_mac, "compiled_step", lambda: tokens.append(1) or compiled)
    expected, expected_cache = read_and_decode(rounded, ids[:1])
    assert len(tokens) == 0
    compile_decoding(rounded)
    output, cache = read_and_decode(rounded, ids[:1])
    assert len(tokens) == 3
    torch.testing.assert_close(output, expected, rtol=0.02, atol=0.02)
    for layer, other in zip(cache.layers, expected_cache.layers, strict=True):
        torch.testing.assert_close(layer.recurrent_states[0], other.recurrent_states[0], rtol=0.02, atol=0.02)

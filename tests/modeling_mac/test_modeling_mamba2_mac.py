"""Our Mamba-2 backbone against transformers' own, from which it differs in speed alone."""

import copy
import importlib.machinery
import sys
import types

import peft
import pytest
import torch
from transformers import DynamicCache, Mamba2Config, Mamba2ForCausalLM, Mamba2Model

from modeling_mac import modeling_mamba2_mac, ssd_scan, ssd_step
from modeling_mac.cuda_kernels_mac import CudaKernels, cuda_kernels
from modeling_mac.modeling_mamba2_mac import Mamba2MacMixer, Mamba2MacModel


def make_config(**changes) -> Mamba2Config:
    sizes = {
        "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 16,
        "n_groups": 2, "chunk_size": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    return Mamba2Config(**sizes | changes)


def make_pair(**changes) -> tuple[Mamba2Model, Mamba2MacModel]:
    """transformers' model and ours with the same weights, none of them at its neutral start."""
    torch.manual_seed(0)
    config = make_config(**changes)
    stock, ours = Mamba2Model(config).eval(), Mamba2MacModel(config).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours.load_state_dict(stock.state_dict(), strict=True)
    return stock, ours


@pytest.fixture
def pair() -> tuple[Mamba2Model, Mamba2MacModel]:
    return make_pair()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(1, 40, (3, 70), generator=torch.Generator().manual_seed(1))


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def assert_same_cache(actual: DynamicCache, expected: DynamicCache) -> None:
    for ours, stock in zip(actual.layers, expected.layers, strict=True):
        assert_same(ours.conv_states[0], stock.conv_states[0])
        assert_same(ours.recurrent_states[0], stock.recurrent_states[0])


def test_state_dict_and_blocks_are_transformers(pair):
    stock, ours = pair
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert [type(layer) for layer in ours.layers] == [type(layer) for layer in stock.layers]
    assert all(type(layer.mixer) is Mamba2MacMixer for layer in ours.layers)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_groups": 1},
        {"use_bias": True},
        {"use_conv_bias": False},
        {"time_step_limit": (0.01, 0.2)},
        {"conv_kernel": 2},
    ],
    ids=str,
)
@torch.no_grad()
def test_outputs_are_equal(changes, ids):
    stock, ours = make_pair(**changes)
    expected = stock(ids, output_hidden_states=True)
    actual = ours(ids, output_hidden_states=True)
    assert_same(actual.last_hidden_state, expected.last_hidden_state)
    assert_same(torch.stack(actual.hidden_states), torch.stack(expected.hidden_states))
    assert_same_cache(actual.cache, expected.cache)


@pytest.mark.parametrize("prompt", [1, 2, 3, 4, 5, 69])
@torch.no_grad()
def test_cached_steps_are_equal(pair, ids, prompt):
    """Prompts shorter than the convolution's reach too."""
    _, ours = pair
    whole = ours(ids).last_hidden_state
    caches = [model(ids[:, :prompt], use_cache=True).cache for model in pair]
    for t in range(prompt, min(prompt + 4, 70)):
        expected, actual = (
            model(ids[:, t : t + 1], cache=cache, use_cache=True).last_hidden_state
            for model, cache in zip(pair, caches, strict=True)
        )
        assert_same(actual, expected)
        assert_same(actual[:, 0], whole[:, t])
    assert_same_cache(caches[1], caches[0])


@pytest.mark.parametrize("pieces", [(30, 40), (1, 2, 67), (2, 1, 3, 64), (40, 2, 28)])
@torch.no_grad()
def test_several_tokens_continue_from_a_cache(pair, ids, pieces):
    stock, ours = pair
    cache, outputs = None, []
    for piece in ids.split(pieces, dim=1):
        output = ours(piece, cache=cache, use_cache=True)
        cache = output.cache
        outputs.append(output.last_hidden_state)
    expected = stock(ids, use_cache=True)
    assert_same(torch.cat(outputs, dim=1), expected.last_hidden_state)
    assert_same_cache(cache, expected.cache)


@torch.no_grad()
def test_left_padding_is_invisible(pair, ids):
    stock, ours = pair
    mask = torch.ones_like(ids)
    mask[0, :30], mask[1, :1] = 0, 0
    expected = stock(ids, attention_mask=mask, use_cache=True)
    actual = ours(ids, attention_mask=mask, use_cache=True)
    for row, start in enumerate((30, 1, 0)):
        alone = ours(ids[row : row + 1, start:]).last_hidden_state[0]
        assert_same(actual.last_hidden_state[row, start:], alone)
        assert_same(actual.last_hidden_state[row, start:], expected.last_hidden_state[row, start:])
    assert_same_cache(actual.cache, expected.cache)


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_long_prompts_go_through_in_pieces(pair, ids, padded, monkeypatch):
    monkeypatch.setattr(modeling_mamba2_mac, "PIECE", 16)
    lengths, scan = [], Mamba2MacMixer.scan
    monkeypatch.setattr(
        Mamba2MacMixer, "scan", lambda self, x, *args: lengths.append(x.shape[1]) or scan(self, x, *args)
    )
    stock, ours = pair
    mask = torch.ones_like(ids)
    if padded:
        mask[0, :30], mask[1, :1] = 0, 0
    expected, actual = (model(ids, attention_mask=mask, use_cache=True) for model in (stock, ours))
    assert lengths == 2 * [14] * 5
    assert_same(actual.last_hidden_state[mask.bool()], expected.last_hidden_state[mask.bool()])
    assert_same_cache(actual.cache, expected.cache)


@torch.no_grad()
def test_right_padding_does_not_reach_back(pair, ids):
    _, ours = pair
    mask = torch.ones_like(ids)
    mask[:, 40:] = 0
    assert_same(ours(ids, attention_mask=mask).last_hidden_state[:, :40], ours(ids[:, :40]).last_hidden_state)


@torch.no_grad()
def test_inputs_embeds_replace_ids(pair, ids):
    _, ours = pair
    assert torch.equal(ours(inputs_embeds=ours.embeddings(ids))[0], ours(ids)[0])


def gradients(model: torch.nn.Module, ids: torch.Tensor, **kwargs) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(ids, use_cache=False, **kwargs).last_hidden_state.pow(3).mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_equal(pair, ids, masked):
    mask = torch.ones_like(ids)
    mask[0, 50:] = 0
    kwargs = {"attention_mask": mask} if masked else {}
    expected, actual = (gradients(model.train(), ids, **kwargs) for model in pair)
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item())


def test_gradient_checkpointing_gives_the_same_gradients(pair, ids):
    _, ours = pair
    expected = gradients(ours.train(), ids)
    ours.gradient_checkpointing_enable()
    for name, gradient in gradients(ours, ids).items():
        torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize("path", ["portable", "kernels"])
@pytest.mark.parametrize("lengths", [(30, 40), (1, 2, 67), (20, 25, 25)])
def test_packed_sequences_equal_each_alone(path, lengths, pair, ids, request):
    if path == "kernels":
        request.getfixturevalue("emulated_kernels")
    _, ours = pair
    seq_idx = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).expand(3, -1).int()
    packed = gradients(ours.train(), ids, seq_idx=seq_idx)
    output = ours(ids, seq_idx=seq_idx, use_cache=False).last_hidden_state
    alone = torch.cat([ours(piece, use_cache=False).last_hidden_state for piece in ids.split(lengths, dim=1)], dim=1)
    assert_same(output, alone)
    ours.zero_grad()
    alone.pow(3).mean().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_packing_continues_from_a_cache(pair, ids):
    """The cached tokens belong to the first of the packed sequences."""
    _, ours = pair
    seq_idx = torch.tensor([4] * 30 + [6] * 40).expand(3, -1)
    cache = ours(ids[:, :20], use_cache=True).cache
    tail = ours(ids[:, 20:], cache=cache, seq_idx=seq_idx[:, 20:], use_cache=True).last_hidden_state
    assert_same(tail, ours(ids, seq_idx=seq_idx).last_hidden_state[:, 20:])


@torch.no_grad()
def test_a_compiled_model_reads_on_and_decodes(pair, ids):
    _, ours = pair
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    found = []
    for model in (ours, compiled):
        cache, outputs = None, []
        for piece in ids.split([20, 48, 1, 1], dim=1):
            result = model(piece, cache=cache, use_cache=True)
            cache = result.cache
            outputs.append(result.last_hidden_state)
        found.append((torch.cat(outputs, dim=1), cache))
    (expected, expected_cache), (actual, actual_cache) = found
    assert_same(actual, expected)
    assert_same_cache(actual_cache, expected_cache)


def grads_of(model: torch.nn.Module, output: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(output.pow(3).mean(), list(model.parameters())))


def test_gradients_pass_through_a_cache(pair, ids):
    stock, ours = pair
    cache, outputs = None, []
    for piece in ids.split([20, 29, 1, 20], dim=1):
        result = ours(piece, cache=cache, use_cache=True)
        cache = result.cache
        outputs.append(result.last_hidden_state)
    expected = grads_of(stock, stock(ids, use_cache=False).last_hidden_state)
    for actual, reference in zip(grads_of(ours, torch.cat(outputs, dim=1)), expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("length", [1, 40])
def test_training_goes_on_from_a_prompt_that_was_only_read(pair, ids, length):
    found = []
    for model, extra in zip(pair, (1, 0), strict=True):  # stock loses the gradient of a single token
        with torch.no_grad():
            cache = model(ids[:, :20], use_cache=True).cache
        output = model(ids[:, 20 : 20 + length + extra], cache=cache, use_cache=True).last_hidden_state
        found.append(grads_of(model, output[:, :length]))
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_half_precision_keeps_the_state_in_float32(pair, ids):
    _, ours = pair
    expected = ours(ids).last_hidden_state
    output = ours.bfloat16()(ids, use_cache=True)
    torch.testing.assert_close(output.last_hidden_state.float(), expected, rtol=0.1, atol=0.1)
    assert all(layer.recurrent_states[0].dtype == torch.float32 for layer in output.cache.layers)


@torch.no_grad()
def test_decoding_keeps_the_cache_where_it_is(pair, ids):
    _, ours = pair
    cache = ours(ids, use_cache=True).cache
    addresses = [layer.recurrent_states[0].data_ptr() for layer in cache.layers]
    before = copy.deepcopy(cache)
    ours(ids[:, :1], cache=cache, use_cache=True)
    assert [layer.recurrent_states[0].data_ptr() for layer in cache.layers] == addresses
    assert not torch.equal(cache.layers[0].recurrent_states[0], before.layers[0].recurrent_states[0])


KERNELS = {
    "causal_conv1d": ["causal_conv1d_fn", "causal_conv1d_update"],
    "mamba_ssm.ops.selective_scan_interface": ["selective_scan_fn"],
    "mamba_ssm.ops.triton.selective_state_update": ["selective_state_update"],
    "mamba_ssm.ops.triton.ssd_combined": ["mamba_chunk_scan_combined", "mamba_split_conv1d_scan_combined"],
}


@pytest.fixture
def recorded_kernels(monkeypatch) -> list[str]:
    """Stand-ins for mamba-ssm and causal-conv1d that note their calls."""
    calls: list[str] = []

    def stand_in(name: str):
        return lambda *args, **kwargs: calls.append(name)

    for name in [*KERNELS, "mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"]:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        for function in KERNELS.get(name, []):
            setattr(module, function, stand_in(function))
        monkeypatch.setitem(sys.modules, name, module)
    cuda_kernels.cache_clear()
    yield calls
    cuda_kernels.cache_clear()


@torch.no_grad()
def test_installed_kernels_never_see_cpu_tensors(recorded_kernels, pair, ids):
    _, ours = pair
    kernels = cuda_kernels()
    kernels.conv()
    kernels.chunk_scan()
    assert recorded_kernels == ["causal_conv1d_fn", "mamba_chunk_scan_combined"], "the stand-ins are in place"
    recorded_kernels.clear()
    cache = ours(ids, use_cache=True).cache
    ours(ids[:, :1], cache=cache, use_cache=True)
    with torch.enable_grad():
        gradients(ours.train(), ids)
    assert recorded_kernels == []


@pytest.fixture
def emulated_kernels(monkeypatch) -> None:
    """The kernels' path, with functions of ours that read the kernels' arguments as those do."""

    def conv(x, weight, bias, activation, seq_idx=None):
        assert activation == "silu"
        reach = weight.shape[1] - 1
        taps = torch.nn.functional.pad(x, (reach, 0)).unfold(2, reach + 1, 1)  # (batch, channels, length, kernel)
        if seq_idx is not None:
            assert seq_idx.dtype == torch.int32 and x.stride(1) == 1, "the kernel takes no other"
            reached = torch.nn.functional.pad(seq_idx, (reach, 0), value=-1).unfold(1, reach + 1, 1)
            taps = taps * (reached == seq_idx.unsqueeze(-1)).unsqueeze(1)
        output = (taps * weight[:, None]).sum(-1)
        return torch.nn.functional.silu(output if bias is None else output + bias[:, None])

    def conv_update(x, state, weight, bias, activation):
        window = torch.cat([state, x], dim=-1)
        state.copy_(window[..., -state.shape[-1] :])
        return conv(window, weight, bias, activation)[..., -x.shape[-1] :]

    def chunk_scan(
        x, dt, A, B, C, chunk_size, D, dt_bias, initial_states, seq_idx, dt_softplus, dt_limit, return_final_states
    ):
        assert dt_softplus and return_final_states and chunk_size == 16
        assert seq_idx is None or seq_idx.dtype == torch.int32
        return ssd_scan(
            x, dt, A, B, C, D=D, dt_bias=dt_bias, initial_state=initial_states, seq_idx=seq_idx, dt_limit=dt_limit
        )

    def state_update(state, x, dt, A, B, C, D, dt_bias, dt_softplus):
        assert state.shape[:3] == x.shape == dt.shape and A.shape == state.shape[1:]
        assert D.shape == x.shape[1:] == dt_bias.shape and dt_softplus == bool(dt_bias.any())
        if dt_softplus:
            dt = torch.nn.functional.softplus(dt + dt_bias)
        before_softplus = dt[..., 0].expm1().log()
        return ssd_step(state, x, before_softplus, A[:, 0, 0], B, C, D=D[:, 0])

    kernels = CudaKernels(chunk_scan, state_update, conv, conv_update, selective_scan=None)
    monkeypatch.setattr(modeling_mamba2_mac, "kernels_for", lambda tensor: kernels)


@pytest.mark.parametrize("changes", [{}, {"time_step_limit": (0.1, 0.5)}], ids=str)
@torch.no_grad()
def test_kernels_path_is_equal(emulated_kernels, changes, ids):
    """Also of one more token, where stock forgets the limits: it reads all at once."""
    stock, ours = make_pair(**changes)
    expected, actual = (model(ids[:, :-1], use_cache=True) for model in (stock, ours))
    assert_same(actual.last_hidden_state, expected.last_hidden_state)
    expected = stock(ids, use_cache=True)
    actual = ours(ids[:, -1:], cache=actual.cache, use_cache=True)
    assert_same(actual.last_hidden_state, expected.last_hidden_state[:, -1:])
    assert_same_cache(actual.cache, expected.cache)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("path", ["portable", "kernels"])
def test_lora_trains_in_proj_and_out_proj(path, checkpointing, pair, ids, request):
    if path == "kernels":
        request.getfixturevalue("emulated_kernels")
    _, ours = pair
    lora = peft.LoraConfig(r=2, target_modules=["in_proj", "out_proj"])
    peft.inject_adapter_in_model(lora, torch.nn.ModuleDict({"language_model": ours}))  # peft refuses a bare Mamba-2
    ours.train()
    if checkpointing:
        ours.gradient_checkpointing_enable()
    embeddings = ours.embeddings(ids).requires_grad_()
    ours(inputs_embeds=embeddings).last_hidden_state.pow(3).mean().backward()
    for layer in ours.layers:
        for projection in (layer.mixer.in_proj, layer.mixer.out_proj):
            assert projection.lora_B["default"].weight.grad.any()
            assert projection.base_layer.weight.grad is None


@torch.no_grad()
def test_nothing_is_patched_globally(pair, ids):
    """A stock model in the same process keeps its own mixer."""
    torch.manual_seed(0)
    stock = Mamba2ForCausalLM(make_config())
    mixer = type(stock.backbone.layers[0].mixer)
    assert mixer.__module__ == "transformers.models.mamba2.modeling_mamba2"
    assert mixer is not Mamba2MacMixer and mixer.forward is not Mamba2MacMixer.forward
    tokens = stock.generate(ids[:, :10], max_new_tokens=5, do_sample=False)
    assert tokens.shape == (3, 15)

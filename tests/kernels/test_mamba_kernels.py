"""Our mixers on the compiled kernels against the same mixers on the portable scans: values, states and gradients."""

import pytest
import torch
from transformers import Mamba2Config
from transformers.models.falcon_mamba.configuration_falcon_mamba import FalconMambaConfig
from transformers.models.mamba.configuration_mamba import MambaConfig

from modeling_mac.modeling_mamba2_mac import Mamba2MacModel
from modeling_mac.modeling_mamba_mac import FalconMambaMacModel, MambaMacModel


pytestmark = pytest.mark.gpu
IDS = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
CHANGES = [
    {},
    {"n_groups": 1},
    {"num_heads": 6, "head_dim": 16, "expand": 3},  # `in_proj` is 6 short of a multiple of 8
    {"time_step_limit": (0.05, 0.3)},
    {"use_conv_bias": False, "use_bias": True},
    {"conv_kernel": 2},
]


def mamba2(device: str, **changes) -> Mamba2MacModel:
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 16, "state_size": 16, "n_groups": 2,
        "chunk_size": 16,
    }  # fmt: skip
    return spread(Mamba2MacModel(Mamba2Config(**sizes | IDS | changes)), device)


def mamba1(device: str, kind: str) -> MambaMacModel:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 16, "time_step_rank": 4}
    if kind == "mamba":
        return spread(MambaMacModel(MambaConfig(**sizes | IDS)), device)
    return spread(FalconMambaMacModel(FalconMambaConfig(**sizes | IDS)), device)


def spread(model: torch.nn.Module, device: str) -> torch.nn.Module:
    """Move no parameter left at its neutral start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval().to(device)


def close(actual: torch.Tensor, expected: torch.Tensor, share: float) -> None:
    """Differ by at most this share of the largest expected value, or five times as much where products are in TF32."""
    share *= 5 if actual.is_cuda else 1  # Triton's default on a GPU
    atol = share * expected.float().abs().max().item()
    torch.testing.assert_close(actual.float(), expected.float(), rtol=0, atol=atol)


def same_cache(actual, expected, share: float) -> None:
    for ours, theirs in zip(actual.layers, expected.layers, strict=True):
        close(ours.conv_states[0], theirs.conv_states[0], share)
        close(ours.recurrent_states[0], theirs.recurrent_states[0], share)


def read(model, ids: torch.Tensor, pieces: list[int], **kwargs):
    """The outputs of the pieces, each on the cache of those before it, and the last cache."""
    cache, outputs = None, []
    for piece in ids.split(pieces, dim=1):
        result = model(piece, cache=cache, use_cache=True, **kwargs)
        cache = result.cache
        outputs.append(result.last_hidden_state)
    return torch.cat(outputs, dim=1), cache


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@torch.no_grad()
def test_prefill_reading_on_and_steps(use, device, ids, changes):
    model = mamba2(device, **changes)
    for pieces in ([37, 1, 1, 1], [1, 2, 36, 1]):
        use(False)
        expected, expected_cache = read(model, ids, pieces)
        use(True)
        actual, cache = read(model, ids, pieces)
        close(actual, expected, 1e-3)
        same_cache(cache, expected_cache, 1e-3)


@torch.no_grad()
def test_left_padding(use, device, ids):
    model, mask = mamba2(device), torch.ones_like(ids)
    mask[0, :20], mask[1, :1] = 0, 0
    found = []
    for compiled in (False, True):
        use(compiled)
        output = model(ids, attention_mask=mask, use_cache=True)
        found.append((output.last_hidden_state[mask.bool()], output.cache))
    close(found[1][0], found[0][0], 1e-3)
    same_cache(found[1][1], found[0][1], 1e-3)


@pytest.mark.parametrize("kind", ["mamba2", "mamba", "falcon_mamba"])
@torch.no_grad()
def test_bf16(use, device, ids, kind):
    model = mamba2(device) if kind == "mamba2" else mamba1(device, kind)
    use(False)
    expected = read(model, ids, [37, 1, 1, 1])[0]
    for name, parameter in model.named_parameters():
        if not name.endswith(("A_log", "dt_bias")) and "dt_proj" not in name:
            parameter.data = parameter.data.bfloat16()
    portable = read(model, ids, [37, 1, 1, 1])[0]
    use(True)
    actual, cache = read(model, ids, [37, 1, 1, 1])
    assert all(layer.recurrent_states[0].dtype == torch.float32 for layer in cache.layers)
    away = (actual.float() - expected).norm() / expected.norm()
    assert away < 0.05 and away < 2 * (portable.float() - expected).norm() / expected.norm()


def gradients(model, ids: torch.Tensor, **kwargs) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(ids, use_cache=False, **kwargs).last_hidden_state.pow(3).mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("how", "changes"),
    [("plain", CHANGES[2]), ("plain", CHANGES[3]), ("padded", {}), ("packed", {}), ("checkpointed", {})],
    ids=str,
)
def test_gradients(use, device, ids, how, changes):
    model, kwargs = mamba2(device, **changes).train(), {}
    if how == "padded":
        kwargs["attention_mask"] = torch.ones_like(ids)
        kwargs["attention_mask"][0, 30:] = 0
    elif how == "packed":
        numbers = torch.repeat_interleave(torch.arange(3), torch.tensor([1, 18, 21]))
        kwargs["seq_idx"] = numbers.expand(2, -1).int().to(device)
    elif how == "checkpointed":
        model.gradient_checkpointing_enable()
    use(False)
    expected = gradients(model, ids, **kwargs)
    use(True)
    for name, gradient in gradients(model, ids, **kwargs).items():
        close(gradient, expected[name], 5e-3)


@torch.no_grad()
def test_packed_sequences_after_a_cache(use, device, ids):
    """Values too: the cached tokens belong to the first of the packed sequences."""
    model = mamba2(device)
    numbers = torch.tensor([4] * 20 + [6] * 20, device=device).expand(2, -1).int()
    use(True)
    cache = model(ids[:, :10], use_cache=True).cache
    tail = model(ids[:, 10:], cache=cache, seq_idx=numbers[:, 10:], use_cache=True).last_hidden_state
    alone = [model(piece).last_hidden_state for piece in ids.split([20, 20], dim=1)]
    close(tail, torch.cat(alone, dim=1)[:, 10:], 1e-3)


@pytest.mark.parametrize("length", [1, 20])
@pytest.mark.parametrize("kind", ["mamba2", "mamba"])
def test_gradients_pass_through_a_cache(use, device, ids, kind, length):
    model = mamba2(device) if kind == "mamba2" else mamba1(device, kind)
    found = []
    for compiled in (False, True):
        use(compiled)
        output = read(model, ids[:, : 20 + length], [20, length])[0][:, 20:]
        found.append(torch.autograd.grad(output.pow(3).mean(), list(model.parameters())))
    for expected, actual in zip(*found, strict=True):
        close(actual, expected, 5e-3)


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba"])
def test_mamba1(use, device, ids, kind):
    model = mamba1(device, kind)
    found = []
    for compiled in (False, True):
        use(compiled)
        with torch.no_grad():
            output, cache = read(model.eval(), ids, [30, 7, 1, 1, 1])
        found.append((output, cache, gradients(model.train(), ids)))
    (expected, expected_cache, expected_gradients), (actual, cache, its_gradients) = found
    close(actual, expected, 1e-3)
    same_cache(cache, expected_cache, 1e-3)
    for name, gradient in its_gradients.items():
        close(gradient, expected_gradients[name], 5e-3)

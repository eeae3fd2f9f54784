"""The selective scan against its recurrence, token by token in float64."""

import pytest
import torch

from modeling_mac import selective_scan_mac
from modeling_mac.selective_scan_mac import selective_scan, selective_step


def recurrence(u, dt, A, B, C, D, dt_bias, state, seq_idx=None):
    """What the docstring of the module says, in the dtype of its arguments."""
    dt = torch.nn.functional.softplus(dt + dt_bias)
    outputs = []
    for token in range(u.shape[1]):
        decay = torch.exp(dt[:, token].unsqueeze(-1) * A)
        if seq_idx is not None and token:
            decay = decay * (seq_idx[:, token] == seq_idx[:, token - 1]).view(-1, 1, 1)
        state = decay * state + (dt * u)[:, token].unsqueeze(-1) * B[:, token].unsqueeze(1)
        outputs.append((state @ C[:, token].unsqueeze(-1)).squeeze(-1) + D * u[:, token])
    return torch.stack(outputs, dim=1), state


def make_inputs(length: int, batch: int = 2, channels: int = 5, size: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "u": random(batch, length, channels), "dt": random(batch, length, channels),
        "A": -random(channels, size).exp(), "B": random(batch, length, size), "C": random(batch, length, size),
        "D": random(channels), "dt_bias": random(channels) - 2, "state": random(batch, channels, size),
    }  # fmt: skip


def scan(inputs, seq_idx=None):
    keywords = {name: inputs[name] for name in ("D", "dt_bias")}
    tensors = (inputs[name] for name in ("u", "dt", "A", "B", "C"))
    return selective_scan(*tensors, **keywords, initial_state=inputs["state"], seq_idx=seq_idx)


def exact_scan(inputs, seq_idx=None):
    return recurrence(*inputs.values(), seq_idx)


def results_and_gradients(function, inputs, dtype, seq_idx):
    inputs = {name: tensor.detach().clone().to(dtype).requires_grad_() for name, tensor in inputs.items()}
    y, state = function(inputs, seq_idx)
    (y.cos().sum() + state.sin().sum()).backward()
    return [y.detach(), state.detach(), *(tensor.grad for tensor in inputs.values())]


@pytest.fixture
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(selective_scan_mac, "CPU_ENTRIES", 7 * 2 * 5 * 3)  # 7 tokens


@pytest.mark.parametrize("packed", [False, True])
def test_every_length(small_chunks, packed):
    for length in range(1, 201):
        inputs = make_inputs(length)
        torch.manual_seed(length)
        seq_idx = torch.randint(0, 30, (2, length)).eq(0).cumsum(1) if packed else None
        actual = results_and_gradients(scan, inputs, torch.float32, seq_idx)
        expected = results_and_gradients(exact_scan, inputs, torch.float64, seq_idx)
        for ours, exact in zip(actual, expected, strict=True):
            scale = max(1.0, exact.abs().max().item())
            torch.testing.assert_close(ours.double(), exact, rtol=0, atol=2e-5 * scale, msg=f"{length} tokens")


def test_chunks_of_the_usual_size_give_the_same():
    inputs = make_inputs(64, channels=1536, size=16)
    y, state = scan(inputs)
    expected_y, expected_state = recurrence(*(tensor.double() for tensor in inputs.values()))
    torch.testing.assert_close(y.double(), expected_y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state.double(), expected_state, rtol=1e-5, atol=1e-5)


def test_a_sequence_in_two_parts_and_in_steps(small_chunks):
    inputs = make_inputs(40)
    y, state = scan(inputs)
    by_token = ("u", "dt", "B", "C")
    first = inputs | {name: inputs[name][:, :23] for name in by_token}
    second = inputs | {name: inputs[name][:, 23:] for name in by_token}
    y_first, between = scan(first)
    y_second, last = scan(second | {"state": between})
    torch.testing.assert_close(torch.cat([y_first, y_second], dim=1), y)
    torch.testing.assert_close(last, state)
    stepped = inputs["state"].clone()
    for token in range(40):
        here = (inputs[name][:, token] for name in ("u", "dt"))
        projections = (inputs[name][:, token] for name in ("B", "C"))
        output = selective_step(stepped, *here, inputs["A"], *projections, D=inputs["D"], dt_bias=inputs["dt_bias"])
        torch.testing.assert_close(output, y[:, token])
    torch.testing.assert_close(stepped, state)


def test_half_precision_rounds_only_what_comes_in_and_out():
    inputs = {name: t.bfloat16() if name in ("u", "B", "C") else t for name, t in make_inputs(50).items()}
    y, state = scan(inputs)
    expected_y, expected_state = recurrence(*(tensor.double() for tensor in inputs.values()))
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    torch.testing.assert_close(state.double(), expected_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y.double(), expected_y, rtol=1e-2, atol=1e-2)


def test_autocast_does_not_reach_the_state():
    inputs = make_inputs(50)
    expected = results_and_gradients(scan, inputs, torch.float32, None)
    with torch.autocast("cpu", torch.bfloat16):
        actual = results_and_gradients(scan, inputs, torch.float32, None)
    assert all(torch.equal(*pair) for pair in zip(actual, expected, strict=True))

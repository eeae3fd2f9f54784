"""The scan and the step against the recurrence that they stand for, token by token in float64."""

import shutil

import pytest
import torch
from torch import nn

from modeling_mac import ssd_mac, ssd_scan, ssd_step


Tensors = dict[str, torch.Tensor]
PER_TOKEN = ("x", "dt", "B", "C")


def make_inputs(
    length: int, *, groups: int = 1, heads: int = 2, head_dim: int = 2, state: int = 3, batch: int = 1,
    dt_scale: float = 1.0, strongest_decay: float = 16.0,
) -> Tensors:  # fmt: skip
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "x": normal(batch, length, heads, head_dim),
        "dt": dt_scale * normal(batch, length, heads),
        "A": -torch.linspace(1, strongest_decay, heads, dtype=torch.float64),
        "B": normal(batch, length, groups, state),
        "C": normal(batch, length, groups, state),
        "D": normal(heads),
        "dt_bias": normal(heads) - 2,
        "initial_state": normal(batch, heads, head_dim, state),
    }


def recurrence(x, dt, A, B, C, D, dt_bias, initial_state, dt_limit=(0.0, float("inf"))):
    """h = exp(dt A) h + dt x B^T; y = h C + D x."""
    heads_a_group = x.shape[2] // B.shape[2]
    B, C = B.repeat_interleave(heads_a_group, 2), C.repeat_interleave(heads_a_group, 2)
    dt = nn.functional.softplus(dt + dt_bias).clamp(*dt_limit)
    state, outputs = initial_state, []
    for t in range(x.shape[1]):
        added = (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        state = state * torch.exp(dt[:, t] * A)[..., None, None] + added
        outputs.append((state * C[:, t, :, None]).sum(-1) + D[:, None] * x[:, t])
    return torch.stack(outputs, dim=1), state


def with_gradients(function, inputs: Tensors, dtype: torch.dtype, **kwargs) -> Tensors:
    """Outputs, final state and the gradient of a random projection of both for every input."""
    inputs = {name: tensor.to(dtype).requires_grad_() for name, tensor in inputs.items()}
    y, final_state = function(**inputs, **kwargs)
    generator = torch.Generator().manual_seed(0)
    loss = sum(
        (result * torch.randn(result.shape, generator=generator, dtype=torch.float64).to(dtype)).sum()
        for result in (y, final_state)
    )
    gradients = torch.autograd.grad(loss, list(inputs.values()))
    return {"y": y.detach(), "final_state": final_state.detach()} | dict(zip(inputs, gradients, strict=True))


def assert_close(actual: Tensors, expected: Tensors, tolerance: float = 1e-5, note: str = "") -> None:
    """Every tensor within `tolerance` of the largest magnitude of the expected one."""
    for name, reference in expected.items():
        assert torch.isfinite(actual[name]).all(), f"{name} {note}"
        error = (actual[name].double() - reference).abs().max() / reference.abs().max()
        assert error <= tolerance, f"{name} is off by {error:.1e} {note}"


@pytest.mark.parametrize("first", range(1, 301, 50))
def test_every_length_up_to_300(first):
    for length in range(first, first + 50):
        inputs = make_inputs(length, groups=1 + length % 2, heads=4)
        expected = with_gradients(recurrence, inputs, torch.float64)
        assert_close(with_gradients(ssd_scan, inputs, torch.float32), expected, note=f"at length {length}")


def test_4000_tokens():
    inputs = make_inputs(4000)
    assert_close(with_gradients(ssd_scan, inputs, torch.float32), with_gradients(recurrence, inputs, torch.float64))


@pytest.mark.parametrize("groups", [1, 2])
def test_without_gradients_the_same_bits_come_out(groups):
    """They come of the same operations, without autograd's bookkeeping, and no input is changed."""
    inputs = {name: tensor.float() for name, tensor in make_inputs(200, groups=groups, heads=4, batch=2).items()}
    kept = {name: tensor.clone() for name, tensor in inputs.items()}
    expected = with_gradients(ssd_scan, inputs, torch.float32)
    with torch.no_grad():
        y, final_state = ssd_scan(**inputs)
    assert torch.equal(y, expected["y"]) and torch.equal(final_state, expected["final_state"])
    assert all(torch.equal(tensor, kept[name]) for name, tensor in inputs.items())


@pytest.mark.parametrize("chunk", [1, 16, 256])
def test_any_length_of_the_chunks(chunk, monkeypatch):
    monkeypatch.setattr(ssd_mac, "CPU_CHUNK", chunk)
    inputs = make_inputs(300, groups=2, heads=4)
    assert_close(with_gradients(ssd_scan, inputs, torch.float32), with_gradients(recurrence, inputs, torch.float64))


@pytest.mark.parametrize("grad", [False, True])
def test_a_batch_may_be_empty(grad):
    x, dt, B = torch.randn(0, 5, 4, 8), torch.randn(0, 5, 4), torch.randn(0, 5, 2, 16)
    with torch.set_grad_enabled(grad):
        y, state = ssd_scan(x, dt, -torch.rand(4), B, B)
    assert y.shape == x.shape and state.shape == (0, 4, 8, 16)


def test_a_state_is_stepped_where_it_lies_or_refused():
    """`ssd_scan` returns it with the heads of an entry together; a layout that would need a copy must not pass."""
    inputs = {name: tensor.float() for name, tensor in make_inputs(5, heads=4).items()}
    _, state = ssd_scan(**inputs)
    token = {name: inputs[name][:, 0] for name in PER_TOKEN}
    other = state.contiguous()
    y = ssd_step(state, **token, A=inputs["A"])
    torch.testing.assert_close(ssd_step(other, **token, A=inputs["A"]), y)
    torch.testing.assert_close(other, state)
    heads_last = state.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    with pytest.raises(RuntimeError, match="view"):
        ssd_step(heads_last, **token, A=inputs["A"])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_serve_neighbouring_heads(groups):
    inputs = make_inputs(70, groups=groups, heads=8, head_dim=3, state=5, batch=3)
    assert_close(with_gradients(ssd_scan, inputs, torch.float32), with_gradients(recurrence, inputs, torch.float64))


@pytest.mark.parametrize("dt_scale", [3, 10, 100])
def test_large_steps_keep_their_digits(dt_scale):
    """Tokens that forget nearly all stand beside tokens that forget nothing."""
    inputs = make_inputs(200, heads=4, batch=2, dt_scale=dt_scale, strongest_decay=300)
    assert_close(with_gradients(ssd_scan, inputs, torch.float32), with_gradients(recurrence, inputs, torch.float64))


def test_huge_steps_give_no_nan():
    inputs = make_inputs(130) | {"dt": torch.full((1, 130, 2), 1e6, dtype=torch.float64)}
    for result in with_gradients(ssd_scan, inputs, torch.float32).values():
        assert torch.isfinite(result).all()


def test_dt_limit():
    inputs, limit = make_inputs(80, dt_scale=3), (0.05, 0.5)
    expected = with_gradients(recurrence, inputs, torch.float64, dt_limit=limit)
    assert_close(with_gradients(ssd_scan, inputs, torch.float32, dt_limit=limit), expected)
    unlimited, _ = recurrence(**inputs)
    assert not torch.allclose(unlimited, expected["y"], atol=1e-2)


def test_optional_arguments_default_to_nothing():
    inputs = make_inputs(70)
    neutral = {name: torch.zeros_like(inputs[name]) for name in ("D", "dt_bias", "initial_state")}
    required = {name: inputs[name].float() for name in ("x", "dt", "A", "B", "C")}
    y, final_state = ssd_scan(**required)
    expected_y, expected_state = recurrence(**inputs | neutral)
    assert_close({"y": y, "state": final_state}, {"y": expected_y, "state": expected_state})


def part_of(inputs: Tensors, start: int, stop: int) -> Tensors:
    return {name: value[:, start:stop] if name in PER_TOKEN else value for name, value in inputs.items()}


@pytest.mark.parametrize("lengths", [(1, 1, 1), (5, 64, 61), (64, 64, 2), (100, 1, 200), (3, 150, 40)])
def test_packed_sequences_do_not_see_each_other(lengths):
    """The initial state belongs to the first sequence; the final state to the last."""
    inputs = make_inputs(sum(lengths), groups=2, heads=4)
    seq_idx = torch.repeat_interleave(torch.tensor([7, 2, 9]), torch.tensor(lengths))[None]

    def alone(**inputs: torch.Tensor):
        state, outputs, start = inputs.pop("initial_state"), [], 0
        for length in lengths:
            part = part_of(inputs, start, start + length)
            y, final_state = recurrence(**part, initial_state=state)
            outputs.append(y)
            state, start = torch.zeros_like(state), start + length
        return torch.cat(outputs, dim=1), final_state

    expected = with_gradients(alone, inputs, torch.float64)
    assert_close(with_gradients(ssd_scan, inputs, torch.float32, seq_idx=seq_idx), expected)


def test_packing_may_differ_from_row_to_row():
    inputs = {name: tensor.float() for name, tensor in make_inputs(90, batch=2).items()}
    seq_idx = torch.stack([torch.arange(90) // 30, torch.arange(90) // 45])
    together, final_state = ssd_scan(**inputs, seq_idx=seq_idx)
    for row in range(2):
        one = {
            name: value[row : row + 1] if name in (*PER_TOKEN, "initial_state") else value
            for name, value in inputs.items()
        }
        y, state = ssd_scan(**one, seq_idx=seq_idx[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], y)
        torch.testing.assert_close(final_state[row : row + 1], state)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision_inputs(dtype, tolerance):
    inputs = make_inputs(100, heads=4, batch=2)
    rounded = {name: value.to(dtype if name in PER_TOKEN else torch.float32) for name, value in inputs.items()}
    y, final_state = ssd_scan(**rounded)
    assert y.dtype == dtype
    assert final_state.dtype == torch.float32
    expected_y, expected_state = recurrence(**{name: value.double() for name, value in rounded.items()})
    assert_close({"y": y}, {"y": expected_y}, tolerance)
    assert_close({"state": final_state}, {"state": expected_state}, 1e-5)  # the state itself is never rounded


def test_a_scan_continues_where_another_stopped():
    inputs = {name: tensor.float() for name, tensor in make_inputs(150).items()}
    y, final_state = ssd_scan(**inputs)
    y_head, middle = ssd_scan(**part_of(inputs, 0, 41))
    y_tail, end = ssd_scan(**part_of(inputs, 41, 150) | {"initial_state": middle})
    torch.testing.assert_close(torch.cat([y_head, y_tail], dim=1), y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end, final_state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_compiles_into_one_graph(packed):
    inputs = {name: tensor.float() for name, tensor in make_inputs(100, groups=2, heads=4).items()}
    seq_idx = torch.arange(100)[None] // 40 if packed else None
    expected = with_gradients(ssd_scan, inputs, torch.float32, seq_idx=seq_idx)
    compiled = torch.compile(ssd_scan, fullgraph=True, backend="aot_eager")
    assert_close(with_gradients(compiled, inputs, torch.float32, seq_idx=seq_idx), expected)


@pytest.mark.parametrize("packed", [False, True])
def test_autocast_rounds_nothing(packed):
    """Several chunks, so that states pass from one to the next; gradients inside and outside of autocast."""
    inputs = {name: tensor.float() for name, tensor in make_inputs(250, groups=2, heads=4).items()}
    seq_idx = torch.arange(250)[None] // 110 if packed else None
    expected = with_gradients(ssd_scan, inputs, torch.float32, seq_idx=seq_idx)

    def scan(**tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return ssd_scan(**tensors)

    assert_close(with_gradients(scan, inputs, torch.float32, seq_idx=seq_idx), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(with_gradients(ssd_scan, inputs, torch.float32, seq_idx=seq_idx), expected)
        stepped = step_through(inputs)
    torch.testing.assert_close(stepped, step_through(inputs))


@pytest.mark.parametrize("length", [20, 100])
def test_a_compiled_graph_reads_on_from_a_state(length):
    """What follows in the graph must find `y` in the layout that was promised while it was traced."""
    inputs = {name: tensor.float() for name, tensor in make_inputs(length, heads=4).items()}

    def flat(**tensors: torch.Tensor) -> torch.Tensor:
        return ssd_scan(**tensors)[0].flatten(2)

    compiled = torch.compile(flat, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs), flat(**inputs))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiles_to_machine_code(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # no half-written file of another process
    inputs = {name: tensor.float() for name, tensor in make_inputs(100).items()}
    expected = ssd_scan(**inputs)
    actual = torch.compile(ssd_scan, fullgraph=True)(**inputs)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def step_through(inputs: Tensors, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
    """`ssd_step` over all tokens of a sequence."""
    state, outputs = inputs["initial_state"].float().clone(), []
    shared = {name: inputs[name] for name in ("A", "D", "dt_bias")}
    for t in range(inputs["x"].shape[1]):
        token = {name: inputs[name][:, t] for name in PER_TOKEN}
        outputs.append(ssd_step(state, **token, **shared, **kwargs))
    return torch.stack(outputs, dim=1), state


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dt_limit", [(0.0, float("inf")), (0.05, 0.5)])
def test_steps_equal_the_scan(groups, dt_limit):
    inputs = {name: tensor.float() for name, tensor in make_inputs(70, groups=groups, heads=4, batch=2).items()}
    y, final_state = ssd_scan(**inputs, dt_limit=dt_limit)
    step_y, step_state = step_through(inputs, dt_limit=dt_limit)
    torch.testing.assert_close(step_y, y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(step_state, final_state, rtol=1e-5, atol=1e-5)


def test_the_step_compiles_into_one_graph():
    inputs = {name: tensor.float() for name, tensor in make_inputs(1, groups=2, heads=4).items()}
    token = {name: inputs.pop(name)[:, 0] for name in PER_TOKEN}
    state, other = inputs.pop("initial_state"), make_inputs(1, groups=2, heads=4)["initial_state"].float()
    compiled = torch.compile(ssd_step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(other, **token, **inputs), ssd_step(state, **token, **inputs))
    torch.testing.assert_close(other, state)


def test_step_without_optional_arguments():
    inputs = make_inputs(1)
    token = {name: inputs[name][:, 0].float() for name in PER_TOKEN}
    state = torch.zeros(1, 2, 2, 3)
    y = ssd_step(state, **token, A=inputs["A"].float())
    neutral = {name: torch.zeros_like(inputs[name]) for name in ("D", "dt_bias", "initial_state")}
    expected_y, expected_state = recurrence(**inputs | neutral)
    assert_close({"y": y[:, None], "state": state}, {"y": expected_y, "state": expected_state})


def test_step_in_half_precision_keeps_the_state_in_float32():
    inputs = make_inputs(20, heads=4, batch=2)
    rounded = {name: value.bfloat16() if name in PER_TOKEN else value.float() for name, value in inputs.items()}
    y, state = step_through(rounded)
    assert y.dtype == torch.bfloat16
    _, expected_state = recurrence(**{name: value.double() for name, value in rounded.items()})
    assert_close({"state": state}, {"state": expected_state}, 1e-5)


def test_step_writes_into_the_state_and_allocates_none_of_its_size():
    heads, head_dim, size = 4, 16, 64
    inputs = make_inputs(1, heads=heads, head_dim=head_dim, state=size)
    token = {name: inputs[name][:, 0].float() for name in PER_TOKEN}
    state = torch.randn(1, heads, head_dim, size)
    address, before = state.data_ptr(), state.clone()
    with torch.profiler.profile(profile_memory=True) as profile:
        ssd_step(state, **token, A=inputs["A"].float(), D=inputs["D"].float())
    assert state.data_ptr() == address
    assert not torch.equal(state, before)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < state.nbytes / 2

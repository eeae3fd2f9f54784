"""On a CUDA device: the kernels of mamba-ssm and causal-conv1d against our own scans, and whole models on both."""

from collections.abc import Iterator

import pytest
import torch
from transformers import Mamba2Config, MambaConfig

from modeling_mac import modeling_mamba2_mac, modeling_mamba_mac
from modeling_mac.cuda_kernels_mac import cuda_kernels
from modeling_mac.modeling_mamba2_mac import Mamba2MacModel
from modeling_mac.modeling_mamba_mac import MambaMacModel
from modeling_mac.ssd_mac import ssd_scan


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
needs_kernels = pytest.mark.skipif(
    not torch.cuda.is_available() or cuda_kernels() is None, reason="needs mamba-ssm and causal-conv1d: extra [cuda]"
)


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """float32 products without TF32, so that two ways can be compared."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch):
    """A function after whose call CUDA tensors take our own path, too."""

    def switch() -> None:
        for module in (modeling_mamba2_mac, modeling_mamba_mac):
            monkeypatch.setattr(module, "kernels_for", lambda tensor: None)

    return switch


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The norm of the difference over the norm of what is expected."""
    return float((one.double() - other.double()).norm() / other.double().norm().clamp(min=1e-30))


def scan_inputs(length: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to("cuda", dtype)  # noqa: E731
    return {
        "x": draw(2, length, 4, 64),
        "dt": draw(2, length, 4),
        "B": draw(2, length, 2, 32),
        "C": draw(2, length, 2, 32),
    }


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given", ["nothing", "state", "packed", "limits"])
@pytest.mark.parametrize("length", [1, 70, 256, 300])
def test_kernel_of_the_scan(length: int, given: str, dtype: torch.dtype) -> None:
    inputs = scan_inputs(length, dtype)
    A, D, bias = -torch.rand(4, device="cuda") - 0.1, torch.rand(4, device="cuda"), torch.rand(4, device="cuda")
    state = torch.randn(2, 4, 64, 32, device="cuda") if given == "state" else None
    seq_idx = None
    if given == "packed":
        seq_idx = (torch.arange(length, device="cuda") >= length // 3).int().expand(2, -1).contiguous()
    limits = (0.05, 0.5) if given == "limits" else (0.0, float("inf"))
    ours = ssd_scan(
        *(inputs[name].double() for name in ("x", "dt")), A.double(), inputs["B"].double(), inputs["C"].double(),
        D=D.double(), dt_bias=bias.double(), dt_limit=limits,
        initial_state=None if state is None else state.double(), seq_idx=seq_idx,
    )  # fmt: skip
    theirs = cuda_kernels().chunk_scan(
        inputs["x"], inputs["dt"], A, inputs["B"], inputs["C"], chunk_size=64, D=D, dt_bias=bias, initial_states=state,
        seq_idx=seq_idx, dt_softplus=True, dt_limit=limits, return_final_states=True,
    )  # fmt: skip
    # Triton multiplies float32 in TF32 by default.
    limit = 2e-3 if dtype == torch.float32 else 2e-2
    assert difference(theirs[0], ours[0]) < limit
    assert difference(theirs[1], ours[1]) < limit


def small_model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "mamba2":
        config = Mamba2Config(
            vocab_size=64, hidden_size=128, num_hidden_layers=2, num_heads=8, head_dim=32, state_size=32, n_groups=2,
            chunk_size=64,
        )  # fmt: skip
        return Mamba2MacModel(config).eval().cuda()
    config = MambaConfig(vocab_size=64, hidden_size=128, num_hidden_layers=2, state_size=16)
    return MambaMacModel(config).eval().cuda()


@needs_kernels
@pytest.mark.parametrize("kind", ["mamba2", "mamba"])
def test_models_are_equal_with_and_without_kernels(kind: str, without_kernels) -> None:
    model = small_model(kind)
    ids = torch.randint(1, 64, (3, 77), device="cuda")
    mask = torch.ones_like(ids)
    mask[1, :30] = 0  # left padding

    def run() -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        learned = model(input_ids=ids, use_cache=False).last_hidden_state
        learned.square().mean().backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        with torch.no_grad():
            read = model(input_ids=ids, attention_mask=mask, use_cache=True)
            steps = []
            for token in range(3):
                step = model(input_ids=ids[:, token : token + 1], cache=read.cache, use_cache=True)
                steps.append(step.last_hidden_state)
            several = model(input_ids=ids[:, :5], cache=read.cache, use_cache=True).last_hidden_state
        return [learned.detach(), read.last_hidden_state[mask.bool()], *steps, several, *gradients]

    theirs = run()
    without_kernels()
    ours = run()
    assert len(ours) == len(theirs) > 10
    for one, other in zip(theirs, ours, strict=True):
        assert difference(one, other) < 2e-2  # Triton multiplies float32 in TF32; 1.1e-2 was seen on an H100

"""
Where a captured token runs.

On a CPU, torch's tracer stands in for a CUDA graph. As that does, it records the operations on tensors alone, and a
replay reads and writes the memory of the capture. On a CUDA device the same tests run on real graphs.
"""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from graph_steps import SIZES
from torch.fx.experimental.proxy_tensor import make_fx
from transformers import Mamba2Config

from modeling_mac import compile_decoding, graph_step_mac, modeling_mamba2_mac
from modeling_mac.modeling_mamba2_mac import Mamba2MacModel


@pytest.fixture(
    params=[
        "stand-in",
        pytest.param(
            "graph",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ]
)
def device(request, monkeypatch) -> Iterator[str]:
    """Where the graphs run."""
    if request.param == "graph":
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield "cuda"
        torch.set_float32_matmul_precision(before)
    else:
        monkeypatch.setattr(graph_step_mac, "GRAPH_DEVICE", "cpu")
        monkeypatch.setattr("modeling_mac.compiling_mac.GRAPH_DEVICE", "cpu")
        monkeypatch.setattr(modeling_mamba2_mac, "can_step", lambda *arguments: False)
        yield "cpu"


@pytest.fixture(autouse=True)
def captures(device, monkeypatch) -> list[int]:
    """A number for every capture."""
    captured: list[int] = []
    real = graph_step_mac.capture_on_cuda

    def capture(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
        captured.append(len(captured))
        if device.type == "cuda":
            return real(step, device)
        step()  # the first run, which loads what is needed
        with torch.no_grad():
            return make_fx(step)()  # it traces by running, which a capture does not: the states are copied in later

    monkeypatch.setattr(graph_step_mac, "capture_on_cuda", capture)
    return captured


@pytest.fixture
def plain(device) -> Mamba2MacModel:
    """A model that decodes as ever."""
    torch.manual_seed(0)
    model = Mamba2MacModel(Mamba2Config(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(device)


@pytest.fixture
def model(plain) -> Mamba2MacModel:
    """The same with graphs."""
    model = copy.deepcopy(plain)
    compile_decoding(model)
    return model


@pytest.fixture
def ids(device) -> torch.Tensor:
    return torch.randint(1, 40, (3, 9), generator=torch.Generator().manual_seed(1)).to(device)

"""
The compiled kernels for these tests: on a CUDA device as they are, elsewhere in Triton's interpreter.

`make test-kernels` gives the interpreter its environment. There the two CUDA modules, which cannot be built without a
compiler of NVIDIA's, are left out: the convolution and Mamba-1's scan go through the reference functions of their own
packages, which read the same arguments.
"""

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Iterator

import pytest
import torch

from modeling_mac import modeling_mamba2_mac, modeling_mamba_mac
from modeling_mac.cuda_kernels_mac import CudaKernels, cuda_kernels


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WHY_SKIPPED = "needs mamba-ssm with a CUDA device, or in Triton's interpreter by `make test-kernels`"


def only_one_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold `triton.autotune` to its first configuration: the others would be timed, for which a GPU is needed."""
    import triton

    autotune = triton.autotune
    monkeypatch.setattr(triton, "autotune", lambda configs, key, **rest: autotune(configs[:1], key, **rest))


def multiply_bf16_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.9's interpreter keeps bf16 as 16-bit integers, and its `tl.dot` multiplies these integers."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    dot = InterpreterBuilder.create_dot

    def create_dot(self, a, b, *rest):
        widened = [self.create_fp_ext(one, tl.float32) if one.dtype.scalar == tl.bfloat16 else one for one in (a, b)]
        return dot(self, *widened, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def interpreted_kernels(monkeypatch: pytest.MonkeyPatch) -> CudaKernels:
    """mamba-ssm's Triton kernels on CPU tensors, and references for what is written in CUDA."""
    for name in ("selective_scan_cuda", "causal_conv1d_cuda"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    processor = types.SimpleNamespace(multi_processor_count=1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: processor)
    only_one_configuration(monkeypatch)
    multiply_bf16_as_numbers(monkeypatch)
    from causal_conv1d.causal_conv1d_interface import causal_conv1d_ref, causal_conv1d_update_ref
    from mamba_ssm.ops.selective_scan_interface import selective_scan_ref
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    def conv(x, weight, bias, activation, seq_idx=None):
        assert x.stride(1) == 1 and x.stride(0) % 8 == 0 and (x.stride(2) % 8 == 0 or x.shape[2] == 1)
        assert seq_idx is None or seq_idx.dtype == torch.int32
        return causal_conv1d_ref(x, weight, bias, activation=activation, seq_idx=seq_idx)

    def scan(u, delta, A, B, C, D, delta_bias, delta_softplus, return_last_state):
        assert u.dtype == delta.dtype == B.dtype == C.dtype and A.dtype == D.dtype == delta_bias.dtype == torch.float32
        return selective_scan_ref(u, delta, A, B, C, D, None, delta_bias, delta_softplus, return_last_state)

    return CudaKernels(mamba_chunk_scan_combined, selective_state_update, conv, causal_conv1d_update_ref, scan)


@pytest.fixture(scope="session")
def kernels() -> Iterator[CudaKernels]:
    monkeypatch = pytest.MonkeyPatch()
    if torch.cuda.is_available():
        found = cuda_kernels()
        if found is None:
            pytest.skip(WHY_SKIPPED)
        yield found
    elif INTERPRETED and importlib.util.find_spec("mamba_ssm"):
        yield interpreted_kernels(monkeypatch)
    else:
        pytest.skip(WHY_SKIPPED)
    monkeypatch.undo()


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def use(monkeypatch, kernels):
    """Call it with whether the layers take the kernels or the portable scans from here on."""

    def choose(compiled: bool) -> None:
        for module in (modeling_mamba2_mac, modeling_mamba_mac):
            monkeypatch.setattr(module, "kernels_for", lambda tensor: kernels if compiled else None)

    torch.backends.cuda.matmul.allow_tf32 = False
    return choose


@pytest.fixture
def ids(device) -> torch.Tensor:
    """(2, 40) tokens: several chunks of the kernels, and no multiple of them."""
    return torch.randint(1, 40, (2, 40), generator=torch.Generator().manual_seed(1)).to(device)

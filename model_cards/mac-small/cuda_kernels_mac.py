"""The kernels of mamba-ssm and causal-conv1d: whether they are there, for which tensors, and what they can read."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch


CONV_STRIDE = 8  # causal-conv1d takes tokens side by side if their distance in memory is a multiple of this


class CudaKernels(NamedTuple):
    """The functions of mamba-ssm and causal-conv1d that serve CUDA tensors."""

    chunk_scan: Callable
    state_update: Callable
    conv: Callable
    conv_update: Callable
    selective_scan: Callable


@lru_cache
def cuda_kernels() -> CudaKernels | None:
    """Look up the functions of mamba-ssm and causal-conv1d; None unless both packages are installed."""
    try:
        from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        return None
    return CudaKernels(
        chunk_scan=mamba_chunk_scan_combined,
        state_update=selective_state_update,
        conv=causal_conv1d_fn,
        conv_update=causal_conv1d_update,
        selective_scan=selective_scan_fn,
    )


def kernels_for(tensor: torch.Tensor) -> CudaKernels | None:
    """Return the kernels that can run on this tensor's device, if there are any."""
    return cuda_kernels() if tensor.is_cuda else None


def as_conv_kernel_takes(tokens: torch.Tensor) -> torch.Tensor:
    """
    Return tokens, (batch, length, channels), in a layout that causal-conv1d reads, copied only if it is needed.

    A cache that is read on hands over its tokens with the time contiguous, for which the kernel keeps no packed
    sequences apart; and the other outputs of `in_proj` lie between the tokens.
    """
    fits = tokens.stride(2) == 1 and tokens.stride(0) % CONV_STRIDE == 0 and tokens.stride(1) % CONV_STRIDE == 0
    return tokens if fits else tokens.clone(memory_format=torch.contiguous_format)


__all__ = ["CONV_STRIDE", "CudaKernels", "as_conv_kernel_takes", "cuda_kernels", "kernels_for"]

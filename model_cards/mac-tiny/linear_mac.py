"""The product of few rows, as decoding makes it, by plain `nn.Linear` layers at the speed of the weights' memory."""

from typing import TypeGuard

import torch
from torch import nn


FEW_ROWS = 64  # from here on both orders of the product take the same time


def project(layer: nn.Module, input: torch.Tensor) -> torch.Tensor:
    """
    `layer(input)`, faster for few rows: (..., in) -> (..., out).

    On CPUs the usual product `x W^T` of a few rows is slow: the kernels cut the work along the rows. Here the weights
    are the long operand, `(W x^T)^T`. Training, half precision, compiled graphs and layers that are more than a plain
    `nn.Linear` (LoRA, quantised, hooked) are called as they are. A function and not a type of its own, since
    quantisers look for layers of exactly the type `nn.Linear`.
    """
    if not is_plain(layer, input) or not 0 < (rows := input.shape[:-1].numel()) <= FEW_ROWS:
        return layer(input)
    flat = input.reshape(rows, -1).contiguous()  # oneDNN multiplies rows with gaps by slow reference code
    if torch.backends.mkldnn.is_available():
        output = torch.ops.mkldnn._linear_pointwise(layer.weight, flat, None, "none", [], "").t()
    else:
        output = torch.mm(layer.weight, flat.t()).t()
    if layer.bias is not None:
        output = output + layer.bias
    return output.contiguous().view(*input.shape[:-1], -1)


def is_plain(layer: nn.Module, input: torch.Tensor) -> TypeGuard[nn.Linear]:
    """Whether this is inference in float32 on a CPU by a layer that nobody has wrapped, hooked or quantised."""
    return (
        type(layer) is nn.Linear
        and not torch.is_grad_enabled()
        and input.device.type == "cpu"
        and input.dtype == layer.weight.dtype == torch.float32
        and type(layer.weight) in (nn.Parameter, torch.Tensor)
        and not (layer._forward_pre_hooks or layer._forward_hooks or "forward" in vars(layer))
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
    )


def as_weight(input: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """`input` in the precision of the layer's weight; a quantised layer casts for itself."""
    dtype = getattr(layer.weight, "dtype", None)
    return input.to(dtype) if dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64) else input


__all__ = ["as_weight", "project"]

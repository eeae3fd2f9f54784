"""
The matrix product of a linear layer without gradients on a CPU, in the order of the factors that is fastest.

The work of a product is divided among threads along the rows of its first factor, and each thread reads the whole of
the second. So with few rows of activations the weight comes first: `(W x^T)^T` in place of `x W^T`.
"""

import math

import torch
from torch import nn


ONEDNN = torch.backends.mkldnn.is_available()
MKL = torch.backends.mkl.is_available()
FEW_ROWS = 128  # rows; with more of them the transposition costs what the order gains
FEWEST_ROWS = 3  # rows of float32 up to which MKL reads the weight faster than oneDNN
LARGE = 2**20  # numbers of a weight from which this holds: a smaller one stays in the processor's caches
PARTS = 64  # of a weight at most, for as many threads


def product(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, gelu: bool = False
) -> torch.Tensor:
    """
    Multiply rows by the transpose of a weight, add a bias, and take the GELU of the sum.

    Of many rows all is one operation: each further one would read and write more than the caches hold.

    Args:
        rows: Activations, (rows, in), contiguous: oneDNN multiplies rows with gaps by its slow reference code.
        weight: (out, in), float32 as the rows, or bfloat16 where the processor multiplies it fast.
        bias: (out,), or None.
        gelu: Whether to take the exact GELU.

    Returns:
        (rows, out), contiguous, of memory that is the caller's.
    """
    # Autocast would turn MKL's products, which are torch's own, to bf16, and leave those of oneDNN as they are.
    mkl = MKL and weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    # `_linear_pointwise` is a private operator of torch, which its compiler calls, too. It runs oneDNN's product in
    # float32, for which `nn.functional.linear` takes another library, which a processor of AMD runs a tenth to a
    # quarter slower.
    if ONEDNN and len(rows) > FEW_ROWS:
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "gelu" if gelu else "none", [], "none")
    if mkl and len(rows) <= FEWEST_ROWS and weight.numel() >= LARGE:
        output = product_of_fewest(rows, weight)
    elif ONEDNN:
        output = torch.ops.mkldnn._linear_pointwise(weight, rows, None, "none", [], "").t().contiguous()
    elif len(rows) <= FEW_ROWS:
        output = torch.mm(weight, rows.t()).t().contiguous()
    else:
        output = torch.mm(rows, weight.t())
    if bias is not None:
        output.add_(bias)
    return nn.functional.gelu(output) if gelu else output


def product_of_fewest(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`product` of up to `FEWEST_ROWS` rows, by MKL."""
    parts = math.gcd(len(weight), PARTS)
    if len(rows) > 1 or parts == 1:
        return torch.mm(weight, rows.t()).t().contiguous()
    # A matrix times one row would be a product of its own kind, which is slower and takes one thread. Several matrices
    # are multiplied as by any number of rows, and by all threads.
    pieces = torch.bmm(weight.view(parts, -1, weight.shape[1]), rows.t().expand(parts, -1, -1))
    return pieces.view(1, -1)


__all__ = ["product"]

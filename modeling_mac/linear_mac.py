"""A linear layer that multiplies few rows, as decoding does, at the speed of the memory that holds the weights."""

import torch
from torch import nn


FEW_ROWS = 64  # from here on both orders of the product take the same time


class FewRowsLinear(nn.Linear):
    """
    `nn.Linear`: same weights, same result.

    On CPUs the usual product `x W^T` of a few rows is slow: the kernels cut the work along the rows. Here the weights
    are the long operand, `(W x^T)^T`. Training, half precision, compiled graphs and quantised weights take the usual
    product.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.shape[:-1].numel()
        if not (0 < rows <= FEW_ROWS and self.is_plain(input)):
            return super().forward(input)
        flat = input.reshape(rows, -1).contiguous()  # oneDNN multiplies rows with gaps by slow reference code
        if torch.backends.mkldnn.is_available():
            output = torch.ops.mkldnn._linear_pointwise(self.weight, flat, None, "none", [], "").t()
        else:
            output = torch.mm(self.weight, flat.t()).t()
        if self.bias is not None:
            output = output + self.bias
        return output.contiguous().view(*input.shape[:-1], -1)

    def is_plain(self, input: torch.Tensor) -> bool:
        """Whether this is inference in float32 on a CPU, by weights that are no tensor subclass."""
        return (
            input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and type(self.weight) in (nn.Parameter, torch.Tensor)
            and not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing())
        )


__all__ = ["FewRowsLinear"]

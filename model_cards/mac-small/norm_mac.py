"""The norms of Mamba-1 and Mamba-2, in fewer passes over memory than those of transformers."""

import torch
from torch import nn
from transformers.models.mamba2.modeling_mamba2 import Mamba2RMSNorm, MambaRMSNormGated


def inverse_rms(tensor: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return 1 / root mean square over the last axis, (..., width) -> (..., 1)."""
    norm = torch.linalg.vector_norm(tensor, dim=-1, keepdim=True)
    return (norm.square() / tensor.shape[-1] + epsilon).rsqrt()


def scale(tensor: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return `tensor * factor`, in the place of `tensor` where no gradient will ask for it."""
    if torch.is_grad_enabled() or tensor.dtype != factor.dtype:
        return tensor * factor
    return tensor.mul_(factor)


class RMSNorm(Mamba2RMSNorm):
    """The RMSNorm of transformers."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normed = hidden_states.float()
        normed = normed * inverse_rms(normed, self.variance_epsilon)
        return scale(normed.to(hidden_states.dtype), self.weight)


class GatedRMSNorm(MambaRMSNormGated):
    """A SiLU gate and then an RMSNorm over each group of channels."""

    def forward(self, hidden_states: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        gated = scale(nn.functional.silu(gate.float()), hidden_states.float())
        groups = gated.unflatten(-1, (-1, self.group_size))  # (batch, length, groups, group size)
        normed = scale(groups, inverse_rms(groups, self.variance_epsilon)).flatten(-2)
        return scale(normed.to(hidden_states.dtype), self.weight)


__all__ = ["GatedRMSNorm", "RMSNorm", "inverse_rms"]

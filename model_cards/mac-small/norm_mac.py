"""The norms of Mamba-1 and Mamba-2, in fewer passes over memory than those of transformers."""

import torch
from torch import nn
from transformers.models.mamba2.modeling_mamba2 import Mamba2RMSNorm, MambaRMSNormGated


def inverse_rms(tensor: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return 1 / root mean square over the last axis, (..., width) -> (..., 1)."""
    norm = torch.linalg.vector_norm(tensor, dim=-1, keepdim=True)
    return (norm.square() / tensor.shape[-1] + epsilon).rsqrt()


class RMSNorm(Mamba2RMSNorm):
    """The RMSNorm of transformers."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normed = hidden_states.float()
        normed = normed * inverse_rms(normed, self.variance_epsilon)
        return self.weight * normed.to(hidden_states.dtype)


class GatedRMSNorm(MambaRMSNormGated):
    """A SiLU gate and then an RMSNorm over each group of channels."""

    def forward(self, hidden_states: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        gated = hidden_states.float() * nn.functional.silu(gate.float())
        groups = gated.unflatten(-1, (-1, self.group_size))  # (batch, length, groups, group size)
        normed = (groups * inverse_rms(groups, self.variance_epsilon)).flatten(-2)
        return self.weight * normed.to(hidden_states.dtype)


__all__ = ["GatedRMSNorm", "RMSNorm", "inverse_rms"]

"""Mamba's short convolution over time: every channel alone, as shifted multiply-adds in the layout of the tokens."""

from typing import Any

import torch


def causal_conv(
    padded: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, seq_idx: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Convolve every channel over time.

    Args:
        padded: (batch, kernel - 1 + length, channels): the tokens, and before them those that they look back to.
        weight: (channels, kernel), the last tap for the token itself.
        bias: (channels,).
        seq_idx: (batch, kernel - 1 + length) packed sequences; a token of another one contributes nothing.

    Returns:
        (batch, length, channels).
    """
    return CausalConv.apply(padded, weight, bias, seq_idx)


class CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        padded: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(padded, weight, seq_idx)
        ctx.has_bias = bias is not None
        dtype = torch.promote_types(padded.dtype, torch.float32)  # of half precision the sum is rounded once
        tokens, taps = padded.to(dtype), weight.to(dtype).t().contiguous()  # the channels of a tap lie together
        here = tokens[:, weight.shape[1] - 1 :]
        output = here * taps[-1] if bias is None else torch.addcmul(bias.to(dtype), here, taps[-1])
        for tap in range(weight.shape[1] - 1):
            output.addcmul_(same_sequence(tokens[:, tap : tap + output.shape[1]], seq_idx, tap), taps[tap])
        return output.to(padded.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        padded, weight, seq_idx = ctx.saved_tensors
        dpadded, dweight = torch.zeros_like(padded), torch.empty_like(weight)
        taps = weight.t().contiguous()
        for tap in range(weight.shape[1]):
            here = slice(tap, tap + gradient.shape[1])
            dtap = same_sequence(gradient, seq_idx, tap)
            dpadded[:, here].addcmul_(dtap, taps[tap])
            dweight[:, tap] = (dtap * padded[:, here]).sum((0, 1))
        return dpadded, dweight, gradient.sum((0, 1)) if ctx.has_bias else None, None


def same_sequence(tokens: torch.Tensor, seq_idx: torch.Tensor | None, tap: int) -> torch.Tensor:
    """Zero what passes between two packed sequences through this tap, (batch, length, channels)."""
    if seq_idx is None:
        return tokens
    length = tokens.shape[1]
    return tokens * (seq_idx[:, tap : tap + length] == seq_idx[:, -length:]).unsqueeze(-1)


__all__ = ["causal_conv"]

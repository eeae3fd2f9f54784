"""
Mamba's short causal convolution over time, in which every channel is convolved on its own.

It is computed as one shifted multiply-add for each tap, so that the tensors keep the layout (batch, length, channels)
and need no transposition.
"""

from typing import Any

import torch


def causal_conv(
    padded: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, seq_idx: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Convolve every channel over time.

    Args:
        padded: Tokens with the `kernel - 1` tokens before them, (batch, kernel - 1 + length, channels).
        weight: Taps of every channel, (channels, kernel); the last tap weighs the token itself.
        bias: Bias of every channel, (channels,); None adds nothing.
        seq_idx: Number of the packed sequence that each token belongs to, (batch, kernel - 1 + length); a token of
            another sequence contributes nothing.

    Returns:
        Convolved tokens, (batch, length, channels), in the dtype of `padded`.
    """
    return CausalConv.apply(padded, weight, bias, seq_idx)


def conv_step(
    state: torch.Tensor, token: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """
    Convolve one token, and put it into the state in place.

    Args:
        state: Last inputs of every channel, (batch, channels, kernel).
        token: Input, (batch, channels).
        weight: Taps of every channel, (channels, kernel).
        bias: Bias of every channel, (channels,); None adds nothing.

    Returns:
        (batch, channels)
    """
    past = state.mT  # (batch, kernel, channels)
    window = torch.cat([past[:, 1:], token.unsqueeze(1)], dim=1)
    past.copy_(window)
    output = (window * weight.t()).sum(1)
    return output if bias is None else output + bias


class CausalConv(torch.autograd.Function):
    """The convolution with a backward pass that is written out; it keeps the inputs and no intermediate tensor."""

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
        # Half precision is summed in float32, so that the result is rounded once and not after every tap.
        dtype = torch.promote_types(padded.dtype, torch.float32)
        tokens, taps = padded.to(dtype), weight.to(dtype).t().contiguous()  # taps: (kernel, channels)
        here = tokens[:, weight.shape[1] - 1 :]  # (batch, length, channels)
        output = here * taps[-1] if bias is None else torch.addcmul(bias.to(dtype), here, taps[-1])
        for tap in range(weight.shape[1] - 1):
            output.addcmul_(same_sequence(tokens[:, tap : tap + output.shape[1]], seq_idx, tap), taps[tap])
        return output.to(padded.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        padded, weight, seq_idx = ctx.saved_tensors
        dpadded, dweight = torch.zeros_like(padded), torch.empty_like(weight)
        taps = weight.t().contiguous()  # (kernel, channels)
        for tap in range(weight.shape[1]):
            here = slice(tap, tap + gradient.shape[1])
            dtap = same_sequence(gradient, seq_idx, tap)  # (batch, length, channels)
            dpadded[:, here].addcmul_(dtap, taps[tap])
            dweight[:, tap] = (dtap * padded[:, here]).sum((0, 1))
        return dpadded, dweight, gradient.sum((0, 1)) if ctx.has_bias else None, None


def same_sequence(tokens: torch.Tensor, seq_idx: torch.Tensor | None, tap: int) -> torch.Tensor:
    """Zero the tokens, (batch, length, channels), that this tap would carry from one packed sequence to another."""
    if seq_idx is None:
        return tokens
    length = tokens.shape[1]
    return tokens * (seq_idx[:, tap : tap + length] == seq_idx[:, -length:]).unsqueeze(-1)


__all__ = ["causal_conv", "conv_step"]

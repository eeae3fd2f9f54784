"""
Mamba's short causal convolution over time, in which every channel is convolved on its own.

It is computed as one shifted multiply-add for each tap, so that the tensors keep the layout (batch, length, channels)
and need no transposition.
"""

from typing import Any

import torch
from torch import nn


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


def causal_conv_silu(
    tokens: torch.Tensor, length: int, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """
    Convolve the last tokens, and apply SiLU, without gradients and in few passes over memory.

    Args:
        tokens: Tokens before which there is nothing, (batch, at least length, channels), in float32.
        length: Number of tokens to convolve.
        weight, bias: As in `causal_conv`.

    Returns:
        (batch, length, channels)
    """
    before = tokens.shape[1] - length
    taps = weight.t().contiguous()  # (kernel, channels)
    here = tokens[:, before:]
    output = here * taps[-1] if bias is None else torch.addcmul(bias, here, taps[-1])
    for back in range(1, len(taps)):
        first = max(back - before, 0)  # token before which this tap sees nothing
        if first < length:
            past = tokens[:, before + first - back : before + length - back]
            output[:, first:].addcmul_(past, taps[-1 - back])
    return nn.functional.silu(output, inplace=True)


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


__all__ = ["causal_conv", "causal_conv_silu", "conv_step"]

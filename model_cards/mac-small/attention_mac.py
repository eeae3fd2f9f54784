"""Attention of an encoder by plain matrix products: where its weights are asked for, and in bf16 on a CPU."""

import torch
from torch import nn

from .int8_mac import FAST_BF16


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute attention by plain matrix products, the one implementation that returns its weights.

    Args:
        query, key, value: Tensors of the heads, (windows, heads, length, head_dim).
        scaling: Factor of the products of queries and keys, before the softmax.

    Returns:
        The output, (windows, length, heads, head_dim), and the weights, (windows, heads, length, length).
    """
    weights = (query @ key.transpose(2, 3) * scaling).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


def attend_by_window(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: None,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """
    Compute attention by plain products, for inference in bf16 on a CPU: torch's fused kernel is half as fast there.

    A window at a time, whose weights stay in the caches, so that memory does not grow with their number. Arguments
    and output are those of `eager_attention_forward`; the weights are not kept.
    """
    each = zip(query * scaling, key.transpose(2, 3), value, strict=True)
    outputs = [(queries @ keys).softmax(dim=-1) @ values for queries, keys, values in each]
    return torch.stack(outputs).transpose(1, 2), None


def is_plain_faster(query: torch.Tensor) -> bool:
    """Tell whether `attend_by_window` is faster than the fused kernel; a graph must not hold a number of windows."""
    inference = not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing())
    return FAST_BF16 and inference and query.dtype == torch.bfloat16 and query.device.type == "cpu"


__all__ = ["attend_by_window", "eager_attention_forward", "is_plain_faster"]

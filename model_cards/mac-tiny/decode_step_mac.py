"""
One token through the blocks of Mamba-2 on a CPU, as decoding has it, in few operations.

A block is one function of tensors, and all that changes from block to block is among its arguments. torch's compiler
therefore turns it into C++ once for all of them; see `compiling_mac`.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers.cache_utils import Cache

from .causal_conv_mac import conv_step
from .linear_mac import Factors, factors_of, is_hooked, multiply
from .ssd_mac import step_in_float, step_size


COMPILED_ROWS = 8  # rows up to which the compiled step is the faster one; it cannot read packed weights


class BlockWeights(NamedTuple):
    """
    What `block_step` needs of a block.

    Args:
        norm, gated_norm: Weights of the norms before in_proj, (width,), and before out_proj, (heads * head_dim,).
        in_proj, out_proj: The projections.
        taps, conv_bias: Weight of the convolution, (channels, 1, kernel), and its bias, (channels,), or None.
        D, dt_bias: Weights of the skip connection and biases of the step sizes, (heads,) each.
    """

    norm: torch.Tensor
    in_proj: Factors
    taps: torch.Tensor
    conv_bias: torch.Tensor | None
    D: torch.Tensor
    dt_bias: torch.Tensor
    gated_norm: torch.Tensor
    out_proj: Factors


class BlockSizes(NamedTuple):
    """
    What else it needs.

    Args:
        groups: Number of groups of B and C.
        group_size: Channels that are normed together before out_proj.
        epsilon, gated_epsilon: What the two norms add to the mean square, tensors without axes.
        dt_limit: Least and greatest step size.
    """

    groups: int
    group_size: int
    epsilon: torch.Tensor
    gated_epsilon: torch.Tensor
    dt_limit: tuple[float, float]


@lru_cache
def as_tensor(value: float) -> torch.Tensor:
    """The number as a tensor without axes, made once: torch would make one at every operation with the number."""
    return torch.tensor(value, dtype=torch.float32, device="cpu")


def normalise(rows: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
    """Divide by the root mean square over the last axis, (..., width) -> the same shape."""
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows * torch.addcmul(epsilon, norm, norm, value=1 / rows.shape[-1]).rsqrt()


def block_step(
    hidden_states: torch.Tensor,
    conv_state: torch.Tensor,
    state: torch.Tensor,
    rates: torch.Tensor,
    weights: BlockWeights,
    sizes: BlockSizes,
) -> torch.Tensor:
    """
    Run a block on one token, and change both states in place.

    Args:
        hidden_states: Token, (batch, width).
        conv_state: Last inputs of the convolution, (batch, channels, kernel).
        state: State of the scan, (batch, heads, head_dim, state).
        rates: Decay rates of the scan, all negative, (heads,).
        weights, sizes: Those of the block.

    Returns:
        (batch, width)
    """
    batch, heads, head_dim, state_size = state.shape
    inner, state_width = heads * head_dim, sizes.groups * state_size
    projected = multiply(normalise(hidden_states, sizes.epsilon) * weights.norm, weights.in_proj)
    gate, conv_input, dt = projected.split_with_sizes([inner, conv_state.shape[1], heads], dim=-1)
    convolved = functional.silu(conv_step(conv_state, conv_input, weights.taps.squeeze(1), weights.conv_bias))
    x, B, C = convolved.split_with_sizes([inner, state_width, state_width], dim=-1)
    B, C = B.view(batch, sizes.groups, state_size), C.view(batch, sizes.groups, state_size)
    dt = step_size(dt, weights.dt_bias, sizes.dt_limit)
    y = step_in_float(state, x.view(batch, heads, head_dim), dt, rates, B, C, weights.D)
    gated = (y.view(batch, inner) * functional.silu(gate)).view(batch, -1, sizes.group_size)
    normed = normalise(gated, sizes.gated_epsilon).view(batch, inner) * weights.gated_norm
    return hidden_states + multiply(normed, weights.out_proj)


@lru_cache
def compiled_step() -> Callable[..., torch.Tensor]:
    """
    `block_step` in C++, which is compiled at its first call for one row, and at its first or second for more.

    Nothing is computed anew where it is read more than once: in a product each output would norm the input again. Each
    number of threads has its own graphs; beyond Dynamo's limit of eight `block_step` runs as it is.
    """
    options: dict[str, Any] = {"cpp_wrapper": True, "realize_reads_threshold": 1, "realize_opcount_threshold": 1}
    return torch.compile(block_step, options=options)


def can_step(hidden_states: torch.Tensor, cache: Cache | None) -> bool:
    """Tell whether these tokens, (batch, length, width), are one token after a cache, in float32 on a CPU."""
    return (
        cache is not None
        and hidden_states.shape[1] == 1
        and hidden_states.device.type == "cpu"
        and hidden_states.dtype == torch.float32
        and cache.has_previous_state(0, 0)
        and not cache.is_recording_past(0)
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
    )


def weights_of(block: Any, rows: int, compiled: bool) -> BlockWeights | None:
    """Collect the weights of a block; None where its modules must be called, since they do more than these do."""
    mixer, norm = block.mixer, block.norm
    conv1d, gated_norm = mixer.conv1d, mixer.norm
    if (
        type(conv1d) is not nn.Conv1d
        or norm.weight.dtype != torch.float32
        or mixer.activation not in ("silu", "swish")
        or any(map(is_hooked, (block, norm, mixer, conv1d, gated_norm)))
    ):
        return None
    in_proj, out_proj = (factors_of(layer, rows, compiled) for layer in (mixer.in_proj, mixer.out_proj))
    if in_proj is None or out_proj is None:
        return None
    return BlockWeights(
        norm.weight, in_proj, conv1d.weight, conv1d.bias, mixer.D, mixer.dt_bias, gated_norm.weight, out_proj,
    )  # fmt: skip


def step_through(
    blocks: Iterable[Any], hidden_states: torch.Tensor, cache: Cache, compiled: bool
) -> torch.Tensor | None:
    """
    Run all blocks on one token that follows those in the cache, for which `can_step` said yes.

    The weights are collected at every token, and nothing that was computed from them is kept, so that whoever changes
    them need not know of it.

    Args:
        blocks: Blocks of a Mamba-2.
        hidden_states: Input of the first, (batch, 1, width).
        cache: Their cache.
        compiled: Whether to run in C++, which up to `COMPILED_ROWS` rows do.

    Returns:
        Output of the last, (batch, 1, width), or None where modules must be called, since a library has wrapped,
        hooked or quantised them.
    """
    first, *_ = blocks = list(blocks)
    rows = len(hidden_states)
    compiled = compiled and rows <= COMPILED_ROWS
    weights = [found for block in blocks if (found := weights_of(block, rows, compiled)) is not None]
    if len(weights) < len(blocks):
        return None
    mixer = first.mixer
    sizes = BlockSizes(
        mixer.n_groups, mixer.norm.group_size, as_tensor(first.norm.variance_epsilon),
        as_tensor(mixer.norm.variance_epsilon), tuple(mixer.time_step_limit),
    )  # fmt: skip
    run = compiled_step() if compiled else block_step
    token = hidden_states[:, 0].clone()  # no view, as between the blocks: the compiler would make one more graph
    # Without the bookkeeping of autograd each of some hundred small operations takes a fifth less.
    with nullcontext() if compiled else torch.inference_mode():
        rates = -torch.exp(torch.stack([block.mixer.A_log for block in blocks]))  # (blocks, heads)
        for layer, of_block, rate in zip(cache.layers, weights, rates.unbind(), strict=True):
            token = run(token, layer.conv_states[0], layer.recurrent_states[0], rate, of_block, sizes)
    return token.unsqueeze(1) if compiled else token.unsqueeze(1).clone()  # a tensor that autograd may take


__all__ = ["can_step", "step_through", "weights_of"]

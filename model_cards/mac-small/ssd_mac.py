"""
State-space duality (Mamba-2; Dao & Gu, arXiv 2405.21060): the scan over a sequence and the step of decoding.

All of it is portable PyTorch. For every head with a state h of (head_dim x state) it computes


    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T        y_t = h_t C_t + D x_t

The scan is the paper's block decomposition (section 6, listing 1): inside a chunk it is attention with a decay mask,
and from chunk to chunk it is the recurrence. All heads of a group share one score matrix B C^T, so that B and C are
never repeated for the heads. The backward pass is written out, since it then computes the decays again instead of
keeping them in memory.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn


# Tokens in a chunk. The work inside a chunk grows with the square of its length, the work from chunk to chunk with
# their number. A CPU is fastest with chunks that stay in its caches, an accelerator with few launches of kernels.
CPU_CHUNK, ACCELERATOR_CHUNK = 96, 256
# Decays are powers of two, which torch computes several times as fast on CPUs as those of e.
LOG2_E = math.log2(math.e)
# Two to anything less is no normal float32 number, and CPUs compute with such numbers, as with those that overflow,
# several times as slowly.
LEAST_EXPONENT = -126.0


def ssd_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    *,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    initial_state: torch.Tensor | None = None,
    seq_idx: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Run the recurrence over a whole sequence.

    Args:
        x: Inputs, (batch, length, heads, head_dim).
        dt: Step sizes before bias and softplus, (batch, length, heads).
        A: Decay rates, all negative, (heads,).
        B: Projections of the inputs into the state, (batch, length, groups, state); a group serves `heads // groups`
            neighbouring heads.
        C: Projections of the state into the outputs, (batch, length, groups, state).
        D: Weights with which an input is added to its own output, (heads,); None adds nothing.
        dt_bias: Bias of the step sizes before softplus, (heads,).
        dt_limit: Least and greatest step size after softplus.
        initial_state: State before the first token, (batch, heads, head_dim, state); zeros if None.
        seq_idx: Number of the packed sequence that each token belongs to, (batch, length): the state starts from
            zero where the number changes. An initial state belongs to the first sequence.

    Returns:
        y: (batch, length, heads, head_dim) in the dtype of `x`; final state: (batch, heads, head_dim, state) float32.
    """
    with no_autocast(x):
        return scan(x, step_size(dt, dt_bias, dt_limit), A, B, C, D, initial_state, seq_idx)


def decay_scan(
    x: torch.Tensor,
    log_decay: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    *,
    D: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Run h_t = exp(log_decay_t) h_{t-1} + x_t B_t^T, y_t = h_t C_t + D x_t: the scan without step sizes.

    Args:
        log_decay: Logarithm of each token's decay, at most 0, (batch, length, heads).
        Others: Arguments of `ssd_scan`, which also tells what is returned.
    """
    rates = log_decay.new_full(log_decay.shape[-1:], -1.0)
    with no_autocast(x):
        return scan(x, -log_decay.float(), rates, B, C, D, initial_state, None, False)


def scan(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """`ChunkedScan` of these arguments; without its bookkeeping where no gradient can be asked for."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return ChunkedScan.apply(*arguments)
    y, final_state, _ = scan_chunks(*arguments)
    return y, final_state


def no_autocast(tensor: torch.Tensor) -> AbstractContextManager:
    """Switch autocast off on the tensor's device: it would round the state of the recurrence with every product."""
    kind = tensor.device.type
    # A tensor without data knows no autocast. `is_autocast_available`, which says so, older compilers cannot trace.
    active = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()


def chunks_of(x: torch.Tensor) -> list[slice]:
    """
    Cut the tokens of `x`, (batch, length, ...), into chunks of nearly equal length, as fits its device.

    An exported graph gets a single chunk, since the number of its chunks must not depend on the length.
    """
    if torch.compiler.is_exporting():
        return [slice(0, x.shape[1])]
    length, target = x.shape[1], CPU_CHUNK if x.device.type == "cpu" else ACCELERATOR_CHUNK
    chunk = math.ceil(length / math.ceil(length / target))
    return [slice(start, min(start + chunk, length)) for start in range(0, length, chunk)]


def chunk_decays(
    log_decay: torch.Tensor, seq_idx: torch.Tensor | None, chunk: slice
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute how much of each token's contribution, and of the state before the chunk, is left at later tokens.

    Args:
        log_decay: Logarithm of each token's decay, (batch, heads, tokens of the chunk).
        seq_idx: Number of each token's packed sequence, (batch, length); nothing is left in another sequence.
        chunk: Place of the chunk in the sequence.

    Returns:
        between: Share of each token's contribution that is left at each later token, (batch, heads, token, later
            token); entries below the diagonal have no meaning.
        from_start: Share of the state before the chunk that is left at each token, (batch, heads, token).
    """
    # The decay between two tokens is a difference of running sums. A large term rounds off the small ones that follow
    # it in such a sum; what was rounded off is summed up, too, and added to the differences.
    log_decay = log_decay * LOG2_E
    running = log_decay.cumsum(-1)  # (batch, heads, token)
    rounded = (log_decay - running.diff(dim=-1, prepend=torch.zeros_like(running[..., :1]))).cumsum(-1)
    between = running.unsqueeze(-2) - running.unsqueeze(-1)
    between = between.add_(rounded.unsqueeze(-2)).sub_(rounded.unsqueeze(-1)).clamp_(LEAST_EXPONENT, 0.0).exp2_()
    from_start = running.exp2()
    if seq_idx is not None:
        sequence = seq_idx[:, None, chunk]
        between *= sequence.unsqueeze(-1) == sequence.unsqueeze(-2)
        from_start *= sequence == seq_idx[:, None, max(chunk.start - 1, 0), None]
    return between, from_start


def scan_chunks(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    seq_idx: torch.Tensor | None,
    weighted_by_step: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor | None]]:
    """
    Run the scan, given the final step sizes.

    The comments write shapes with b for the batch, q for the tokens of a chunk, h for the heads, g for the groups, r
    for the heads in a group, p for head_dim and n for the state.

    Args:
        dt: Final step sizes, (batch, length, heads).
        weighted_by_step: Whether a token's step size, beside its decay, weighs its input.
        Others: Arguments of `ssd_scan`.

    Returns:
        What `ssd_scan` returns, and the states before the chunks, (b, g, n, r p).
    """
    groups = B.shape[2]
    # (b, g, n, r p): the heads of a group lie together, so that one product serves them all
    state = None if initial_state is None else initial_state.float().unflatten(1, (groups, -1)).flatten(2, 3).mT
    states: list[torch.Tensor | None] = []
    outputs = []
    for chunk in chunks_of(x):
        states.append(state)
        inputs, step = x[:, chunk].float(), dt[:, chunk].mT  # (b, q, h, p), (b, h, q)
        B_chunk, C_chunk = B[:, chunk].float().transpose(1, 2), C[:, chunk].float().transpose(1, 2)  # (b, g, q, n)
        between, from_start = chunk_decays(step * A.float()[:, None], seq_idx, chunk)
        # (b, h, q, later q)
        mix = between.mul_(step.unsqueeze(-1)) if weighted_by_step else between

        weighted = inputs * mix[..., -1].mT.unsqueeze(-1)  # what remains at the chunk's end
        update = B_chunk.mT @ group_heads(weighted, groups)  # (b, g, n, r p)
        scores = (B_chunk @ C_chunk.mT).triu_()  # (b, g, q, later q)
        mix.unflatten(1, (groups, -1)).mul_(scores.unsqueeze(2))
        output = (mix.mT @ inputs.transpose(1, 2)).transpose(1, 2)  # (b, q, h, p)
        if D is not None:  # added here and not on the diagonal of `mix`, which could not be exported to ONNX
            output = output.addcmul_(inputs, D.float().unsqueeze(-1))
        if state is not None:
            carried = ungroup_heads(C_chunk @ state, x.shape[3])
            output = output.addcmul_(carried, from_start.mT.unsqueeze(-1))
            update.addcmul_(state, per_state_column(from_start[..., -1], groups, x.shape[3]))
        outputs.append(output)
        state = update
    final_state = update.mT.unflatten(2, (-1, x.shape[3])).flatten(1, 2)
    return torch.cat(outputs, dim=1).to(x.dtype), final_state, states


class ChunkedScan(torch.autograd.Function):
    """`scan_chunks` with a backward pass; its comments write shapes in the same way."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dt: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        D: torch.Tensor | None,
        initial_state: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
        weighted_by_step: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, final_state, states = scan_chunks(x, dt, A, B, C, D, initial_state, seq_idx, weighted_by_step)
        ctx.save_for_backward(x, dt, A, B, C, D, seq_idx, *(states if any(ctx.needs_input_grad) else []))
        ctx.has_initial_state = initial_state is not None
        ctx.weighted_by_step = weighted_by_step
        return y, final_state

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor, d_final_state: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with no_autocast(dy):  # a training loop may call `backward` under autocast
            return ChunkedScan.gradients(ctx, dy, d_final_state)

    @staticmethod
    def gradients(ctx: Any, dy: torch.Tensor, d_final_state: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, dt, A, B, C, D, seq_idx, *states = ctx.saved_tensors
        groups, head_dim = B.shape[2], x.shape[3]
        dx, ddt, dB, dC = (torch.empty_like(tensor, dtype=torch.float32) for tensor in (x, dt, B, C))
        dA = torch.zeros_like(A, dtype=torch.float32)
        dstate = d_final_state.float().unflatten(1, (groups, -1)).flatten(2, 3).mT  # (b, g, n, r p)
        for chunk, state in zip(reversed(chunks_of(x)), reversed(states), strict=True):
            step = dt[:, chunk].transpose(1, 2)  # (b, h, q)
            inputs = x[:, chunk].float()  # (b, q, h, p)
            if ctx.weighted_by_step:
                inputs = inputs * dt[:, chunk].unsqueeze(-1)
            dy_chunk = dy[:, chunk].float()
            B_chunk, C_chunk = B[:, chunk].float().transpose(1, 2), C[:, chunk].float().transpose(1, 2)
            between, from_start = chunk_decays(step * A.float()[:, None], seq_idx, chunk)

            # Inside the chunk: y = (between * scores)^T inputs.
            scores = (B_chunk @ C_chunk.mT).triu_().unsqueeze(2)  # (b, g, 1, q, later q)
            dmix = inputs.transpose(1, 2) @ dy_chunk.permute(0, 2, 3, 1)  # (b, h, q, later q)
            dmix = dmix.mul_(between).unflatten(1, (groups, -1))  # (b, g, r, q, later q)
            dscores = dmix.sum(2).triu_()  # (b, g, q, later q)
            dlog = dmix.mul_(scores).flatten(1, 2)  # gradient of the logarithm of `between`
            mix = (between.unflatten(1, (groups, -1)) * scores).flatten(1, 2)
            dinputs = (mix @ dy_chunk.transpose(1, 2)).transpose(1, 2)
            dB_chunk, dC_chunk = dscores @ C_chunk, dscores.transpose(-1, -2) @ B_chunk

            # Into the next chunk: state = from_start[last] * state + (inputs * between[:, last])^T B.
            to_end = between[..., -1].transpose(1, 2).unsqueeze(-1)  # (b, q, h, 1)
            weighted = inputs * to_end
            dB_chunk += group_heads(weighted, groups) @ dstate.mT
            dweighted = ungroup_heads(B_chunk @ dstate, head_dim)
            dlog[..., -1] += (weighted * dweighted).sum(-1).transpose(1, 2)
            dinputs = dinputs + dweighted.mul_(to_end)

            # Out of the state before the chunk: y = from_start * (C state^T).
            dlog_start = torch.zeros_like(from_start)
            if state is not None:
                dcarried = dy_chunk * from_start.transpose(1, 2).unsqueeze(-1)
                carried = ungroup_heads(C_chunk @ state, head_dim)
                dlog_start = (dcarried * carried).sum(-1).transpose(1, 2)
                dcarried = group_heads(dcarried, groups)  # (b, g, q, r p)
                dC_chunk += dcarried @ state.mT
                dstate = dstate * per_state_column(from_start[..., -1], groups, head_dim)
                dlog_start[..., -1] += (dstate * state).sum(2).unflatten(-1, (-1, head_dim)).sum(-1).flatten(1, 2)
                dstate = dstate + C_chunk.mT @ dcarried

            # `between` from i to j sums the decays of i + 1 .. j, `from_start` those up to j.
            earlier = dlog.cumsum_(-2).triu_(1).sum(-1)  # (b, h, q): of the pairs that reach over the next token
            dlog_decay = nn.functional.pad(earlier[..., :-1], (1, 0))
            dlog_decay = dlog_decay + dlog_start.flip(-1).cumsum(-1).flip(-1)
            dA += (dlog_decay * step).sum((0, 2))
            ddt[:, chunk] = (dlog_decay * A.float()[:, None]).mT
            if ctx.weighted_by_step:
                ddt[:, chunk] += (dinputs * x[:, chunk]).sum(-1)
                dinputs = dinputs.mul_(dt[:, chunk].unsqueeze(-1))
            dx[:, chunk] = dinputs
            dB[:, chunk], dC[:, chunk] = dB_chunk.transpose(1, 2), dC_chunk.transpose(1, 2)
        dD = None
        if D is not None:
            dD = (dy.float() * x).sum((0, 1, 3)).to(D.dtype)
            dx.addcmul_(dy.float(), D.float().unsqueeze(-1))
        dinitial = dstate.mT.unflatten(2, (-1, head_dim)).flatten(1, 2) if ctx.has_initial_state else None
        return dx.to(x.dtype), ddt, dA.to(A.dtype), dB.to(B.dtype), dC.to(C.dtype), dD, dinitial, None, None


def group_heads(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    """Reshape (batch, tokens, heads, head_dim) to (batch, groups, tokens, heads per group * head_dim)."""
    batch, length, heads, head_dim = tensor.shape
    return tensor.reshape(batch, length, groups, heads // groups * head_dim).transpose(1, 2)


def ungroup_heads(tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Reshape (batch, groups, tokens, heads per group * head_dim) to (batch, tokens, heads, head_dim)."""
    return tensor.transpose(1, 2).unflatten(3, (-1, head_dim)).flatten(2, 3)


def per_state_column(decay: torch.Tensor, groups: int, head_dim: int) -> torch.Tensor:
    """Repeat each head's value for its columns of the state: (batch, heads) -> (batch, groups, 1, columns)."""
    return decay.unflatten(1, (groups, -1)).repeat_interleave(head_dim, dim=2).unsqueeze(2)


def step_size(dt: torch.Tensor, dt_bias: torch.Tensor | None, dt_limit: tuple[float, float]) -> torch.Tensor:
    """Compute the final step sizes in float32: softplus(dt + bias), clamped to the limits, in the shape of `dt`."""
    dt = dt.float() if dt_bias is None else dt.float() + dt_bias.float()
    dt = nn.functional.softplus(dt)
    return dt if tuple(dt_limit) == (0.0, math.inf) else dt.clamp(*dt_limit)


def ssd_step(
    state: torch.Tensor,
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    *,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    dt_limit: tuple[float, float] = (0.0, math.inf),
) -> torch.Tensor:
    """
    Run the recurrence for one token, writing the new state into `state`.

    Args:
        state: State before the token, (batch, heads, head_dim, state) in float32; it is changed in place, and nothing
            of its size is allocated. Fastest in the layout in which `ssd_scan` returns it for one group, where the
            heads of a state entry lie together.
        x: Input of the token, (batch, heads, head_dim).
        dt: Step size before bias and softplus, (batch, heads).
        A: Decay rates, (heads,), as in `ssd_scan`; so are `D`, `dt_bias` and `dt_limit`.
        B: Projection of the input into the state, (batch, groups, state).
        C: Projection of the state into the output, (batch, groups, state).

    Returns:
        y: (batch, heads, head_dim) in the dtype of `x`.
    """
    with no_autocast(x):
        y = step_in_float(
            state, x.float(), step_size(dt, dt_bias, dt_limit), A.float(), B.float(), C.float(),
            None if D is None else D.float(),
        )  # fmt: skip
    return y.to(x.dtype)


def step_in_float(
    state: torch.Tensor,
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
) -> torch.Tensor:
    """`ssd_step` on float32 tensors, without autocast, given the final step sizes `dt`, (batch, heads)."""
    batch, groups, state_size = B.shape
    decay = torch.exp(dt * A).unsqueeze(-1).expand(x.shape).reshape(batch, groups, 1, -1)
    inputs = (x * dt.unsqueeze(-1)).view(batch, groups, 1, -1)  # (batch, groups, 1, heads a group * head_dim)
    entries = state.view(batch, groups, -1, state_size).mT  # (batch, groups, state, heads a group * head_dim)
    entries.mul_(decay).addcmul_(B.unsqueeze(-1), inputs)
    y = torch.bmm(C.reshape(batch * groups, 1, state_size), entries.flatten(0, 1)).view(x.shape)
    return y if D is None else torch.addcmul(y, x, D.unsqueeze(-1))


__all__ = ["chunk_decays", "decay_scan", "ssd_scan", "ssd_step", "step_in_float", "step_size"]

"""
The selective scan (Mamba-1; Gu & Dao, arXiv 2312.00752) over a sequence, and its step of decoding.

All of it is portable PyTorch. For every channel, which has a state h of its own, it computes

    h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t        y_t = C_t . h_t + D u_t

Every entry of the state decays at its own rate, so that chunks cannot be turned into matrix products as in Mamba-2.
The recurrence runs token by token with one fused multiply-add for each; all else is computed on chunks that stay in a
CPU's caches. The backward pass is written out: it keeps one state for each chunk and computes the others again.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch

from .ssd_mac import no_autocast, step_size


# Entries of the state, counted over tokens and batch, in a chunk. On a CPU they fill one megabyte, which fits its
# caches; an accelerator is faster with few launches of kernels.
CPU_ENTRIES, ACCELERATOR_ENTRIES = 1 << 18, 1 << 25
LOG2_E = 1 / math.log(2)  # a CPU raises 2 to a power more than twice as fast as e
UNLIMITED = (0.0, math.inf)  # least and greatest step size: Mamba-1 has no limits


def selective_scan(
    u: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    *,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
    seq_idx: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Run the recurrence over a whole sequence.

    Args:
        u: Inputs, (batch, length, channels).
        dt: Step sizes before bias and softplus, (batch, length, channels).
        A: Decay rates, all negative, (channels, state).
        B: Projections of the inputs into the state, (batch, length, state).
        C: Projections of the state into the outputs, (batch, length, state).
        D: Weights with which an input is added to its own output, (channels,); None adds nothing.
        dt_bias: Bias of the step sizes before softplus, (channels,).
        initial_state: State before the first token, (batch, channels, state); zeros if None.
        seq_idx: Number of the packed sequence that each token belongs to, (batch, length): the state starts from
            zero where the number changes. An initial state belongs to the first sequence.

    Returns:
        y: Outputs, (batch, length, channels), in the dtype of `u`.
        final state: State after the last token, (batch, channels, state) float32, with contiguous channels.
    """
    with no_autocast(u):
        return SelectiveScan.apply(u, step_size(dt, dt_bias, UNLIMITED), A, B, C, D, initial_state, seq_idx)


class ChunkBuffers:
    """
    The decays and the states of a chunk's tokens, in memory that all chunks share.

    The comments write shapes with q for the tokens of a chunk, b for the batch, n for the state, c for the channels.
    """

    def __init__(self, u: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, seq_idx: torch.Tensor | None):
        batch, self.length = u.shape[:2]
        self.A = A.float().t().contiguous()  # (n, c)
        self.binary_A = self.A * LOG2_E
        self.dt = dt.transpose(0, 1)  # (length, b, c)
        self.inputs = (u.float() * dt).transpose(0, 1)  # (length, b, c)
        entries = CPU_ENTRIES if u.device.type == "cpu" else ACCELERATOR_ENTRIES
        self.chunk = max(1, min(self.length, entries // (batch * self.A.numel())))
        shape = (self.chunk, batch, *self.A.shape)  # (q, b, n, c)
        self.decays, self.states = (torch.empty(shape, device=u.device) for _ in range(2))
        self.continues = None  # (length, b): 0 where another sequence starts
        if seq_idx is not None:
            same = seq_idx[:, 1:] == seq_idx[:, :-1]
            self.continues = torch.nn.functional.pad(same, (1, 0), value=True).t().float()

    def chunks(self) -> Iterator[slice]:
        """Give the places of the chunks in the sequence, in order."""
        return (slice(start, min(start + self.chunk, self.length)) for start in range(0, self.length, self.chunk))

    def run(self, chunk: slice, B: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Run the recurrence over one chunk.

        Args:
            chunk: Place of the chunk in the sequence.
            B: Input projections of the whole sequence, (length, b, n).
            state: State before the chunk, (b, n, c); zeros if None.

        Returns:
            Decay and state of every token of the chunk, each (q, b, n, c), valid until the next call.
        """
        length = chunk.stop - chunk.start
        decays, states = self.decays[:length], self.states[:length]
        torch.mul(self.dt[chunk].unsqueeze(2), self.binary_A, out=decays).exp2_()
        if self.continues is not None:
            decays *= self.continues[chunk, :, None, None]
        torch.mul(B[chunk].unsqueeze(3), self.inputs[chunk].unsqueeze(2), out=states)
        for decay, here in zip(decays.unbind(), states.unbind(), strict=True):
            if state is not None:
                here.addcmul_(decay, state)
            state = here
        return decays, states


class SelectiveScan(torch.autograd.Function):
    """The scan, given the final step sizes; `ChunkBuffers` explains the shapes in the comments."""

    @staticmethod
    def forward(
        ctx: Any,
        u: torch.Tensor,
        dt: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        D: torch.Tensor | None,
        initial_state: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        buffers = ChunkBuffers(u, dt, A, seq_idx)
        B_tokens, C_tokens = (tensor.float().transpose(0, 1) for tensor in (B, C))  # (length, b, n)
        state = None if initial_state is None else initial_state.float().mT  # (b, n, c)
        before: list[torch.Tensor | None] = []
        outputs = []
        for chunk in buffers.chunks():
            before.append(state)
            _, states = buffers.run(chunk, B_tokens, state)
            outputs.append((C_tokens[chunk].unsqueeze(2) @ states).squeeze(2))  # (q, b, c)
            final_state = state = states[-1].clone()
        y = torch.cat(outputs).transpose(0, 1)
        if D is not None:
            y.addcmul_(u.float(), D.float())
        ctx.save_for_backward(u, dt, A, B, C, D, seq_idx, *(before if any(ctx.needs_input_grad) else []))
        ctx.has_initial_state = initial_state is not None
        return y.to(u.dtype), final_state.mT

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor, d_final_state: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with no_autocast(dy):  # a training loop may call `backward` under autocast
            return SelectiveScan.gradients(ctx, dy, d_final_state)

    @staticmethod
    def gradients(ctx: Any, dy: torch.Tensor, d_final_state: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        u, dt, A, B, C, D, seq_idx, *before = ctx.saved_tensors
        buffers = ChunkBuffers(u, dt, A, seq_idx)
        B_tokens, C_tokens, dy_tokens = (tensor.float().transpose(0, 1) for tensor in (B, C, dy))
        dinputs, ddt = torch.empty_like(buffers.inputs), torch.empty_like(buffers.inputs)  # (length, b, c)
        dB, dC = torch.empty_like(B_tokens), torch.empty_like(C_tokens)  # (length, b, n)
        dA = torch.zeros_like(buffers.A)
        carried = d_final_state.float().mT.contiguous()  # (b, n, c) gradient of the state after the chunk
        dstates_buffer, product_buffer = torch.empty_like(buffers.states), torch.empty_like(buffers.states)
        for chunk, state in zip(reversed(list(buffers.chunks())), reversed(before), strict=True):
            decays, states = buffers.run(chunk, B_tokens, state)
            length = len(states)
            dy_chunk = dy_tokens[chunk].unsqueeze(2)  # (q, b, 1, c)
            dC[chunk] = (states @ dy_chunk.mT).squeeze(3)
            dstates, products = dstates_buffer[:length], product_buffer[:length]
            torch.mul(C_tokens[chunk].unsqueeze(3), dy_chunk, out=dstates)
            dstates[-1] += carried
            for token in range(length - 1, 0, -1):
                dstates[token - 1].addcmul_(decays[token], dstates[token])
            dB[chunk] = (dstates @ buffers.inputs[chunk].unsqueeze(3)).squeeze(3)
            dinputs[chunk] = (B_tokens[chunk].unsqueeze(2) @ dstates).squeeze(2)
            carried = dstates[0] * decays[0]
            # Gradient of the decays' logarithms dt A, (q, b, n, c): each token's decay times the state before it.
            torch.mul(dstates, decays, out=products)
            products[1:].mul_(states[:-1])
            products[0].mul_(0.0 if state is None else state)
            ddt[chunk] = (products * buffers.A).sum(2)
            dA += (products * buffers.dt[chunk].unsqueeze(2)).sum((0, 1))
        dinputs, ddt = dinputs.transpose(0, 1), ddt.transpose(0, 1)
        du, dD = dinputs * dt, None
        ddt = torch.addcmul(ddt, dinputs, u.float())
        if D is not None:
            du.addcmul_(dy.float(), D.float())
            dD = (dy.float() * u).sum((0, 1)).to(D.dtype)
        dinitial = carried.mT if ctx.has_initial_state else None
        dA, dB, dC = dA.t().to(A.dtype), dB.transpose(0, 1).to(B.dtype), dC.transpose(0, 1).to(C.dtype)
        return du.to(u.dtype), ddt, dA, dB, dC, dD, dinitial, None


def selective_step(
    state: torch.Tensor,
    u: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    *,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Run the recurrence for one token, writing the new state into `state`.

    Args:
        state: State before the token, (batch, channels, state) in float32, which is changed in place. It is fastest
            in the layout in which `selective_scan` returns it.
        u: Input of the token, (batch, channels).
        dt: Step size before bias and softplus, (batch, channels).
        A: Decay rates, (channels, state), as in `selective_scan`; so are `D` and `dt_bias`.
        B: Projection of the input into the state, (batch, state).
        C: Projection of the state into the output, (batch, state).

    Returns:
        y: Output of the token, (batch, channels), in the dtype of `u`.
    """
    dt = step_size(dt, dt_bias, UNLIMITED)
    decay = torch.exp(dt.unsqueeze(1) * A.float().t())  # (batch, state, channels)
    inputs = (u.float() * dt).unsqueeze(1)  # (batch, 1, channels)
    entries = state.mT  # (batch, state, channels), a view
    entries.mul_(decay).addcmul_(B.float().unsqueeze(2), inputs)
    with no_autocast(u):
        y = torch.bmm(C.float().unsqueeze(1), entries).squeeze(1)
    if D is not None:
        y = torch.addcmul(y, u.float(), D.float())
    return y.to(u.dtype)


__all__ = ["selective_scan", "selective_step"]

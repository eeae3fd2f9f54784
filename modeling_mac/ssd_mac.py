"""
State-space duality (Mamba-2; Dao & Gu, arXiv 2405.21060): the scan over a sequence and the step of decoding.

Portable PyTorch. For every head with state h (head_dim x state):

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T        y_t = h_t C_t + D x_t

The scan is the paper's block decomposition (section 6, listing 1): inside a chunk it is attention with a decay mask,
between chunks it is the recurrence. All heads of a group share one score matrix C B^T; B and C are never repeated for
the heads.
"""

import math

import torch
from torch import nn


TARGET_CHUNK = 64  # tokens; inside a chunk the work grows with its square, across chunks with their number


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
        x: (batch, length, heads, head_dim) inputs.
        dt: (batch, length, heads) step sizes before softplus.
        A: (heads,) negative decay rates.
        B: (batch, length, groups, state) input projections; a group serves `heads // groups` neighbouring heads.
        C: (batch, length, groups, state) output projections.
        D: (heads,) skip weights.
        dt_bias: (heads,) added to `dt` before softplus.
        dt_limit: Bounds of the step size after softplus.
        initial_state: (batch, heads, head_dim, state) state before the first token; zeros if None.
        seq_idx: (batch, length) integers, equal for tokens of one packed sequence: the state starts from zero where
            the number changes. An initial state belongs to the first sequence.

    Returns:
        y: (batch, length, heads, head_dim) in the dtype of `x`; final state: (batch, heads, head_dim, state) float32.
    """
    batch, length, heads, head_dim = x.shape
    groups, state_size = B.shape[2:]
    num_chunks = math.ceil(length / TARGET_CHUNK)
    chunk = math.ceil(length / num_chunks)
    padding = num_chunks * chunk - length  # less than one token a chunk

    def to_chunks(tensor: torch.Tensor) -> torch.Tensor:
        """(batch, length, ...) -> float32 (batch, chunks, chunk, ...), zeros at the end."""
        tensor = tensor if padding == 0 else nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, padding))
        return tensor.float().unflatten(1, (num_chunks, chunk))

    dt = step_size(dt, dt_bias, dt_limit)
    decay = to_chunks(dt * A.float()).permute(0, 1, 3, 2).cumsum(-1)  # (batch, chunks, heads, chunk)
    decay = decay.unflatten(2, (groups, -1))  # (batch, chunks, groups, heads a group, chunk)
    inputs = to_chunks(x.float() * dt.unsqueeze(-1)).unflatten(3, (groups, -1))
    inputs = inputs.permute(0, 1, 3, 4, 2, 5)  # (batch, chunks, groups, heads a group, chunk, head_dim)
    B, C = to_chunks(B).transpose(2, 3), to_chunks(C).transpose(2, 3)  # (batch, chunks, groups, chunk, state)
    sequence = None if seq_idx is None else chunk_seq_idx(seq_idx, padding, num_chunks)

    weights = decay_mask(decay, sequence) * (C @ B.transpose(-1, -2)).unsqueeze(3)
    y = weights @ inputs  # inside the chunks

    to_end = torch.exp(decay[..., -1:] - decay)
    carry = torch.exp(decay[..., -1])  # (batch, chunks, groups, heads a group)
    from_start = torch.exp(decay)
    if sequence is not None:
        last, first = sequence[..., -1:], torch.cat([sequence[:, :1, 0], sequence[:, :-1, -1]], dim=1).unsqueeze(-1)
        to_end = to_end * (sequence == last)[:, :, None, None]
        carry = carry * (first == last)[:, :, None]
        from_start = from_start * (sequence == first)[:, :, None, None]

    updates = (inputs * to_end.unsqueeze(-1)).transpose(-1, -2).flatten(3, 4) @ B  # (…, heads a group * head_dim, state)
    updates = updates.unflatten(3, (-1, head_dim))
    if initial_state is None:
        state = updates.new_zeros(batch, groups, heads // groups, head_dim, state_size)
    else:
        state = initial_state.float().unflatten(1, (groups, -1))
    before = []
    for index in range(num_chunks):
        before.append(state)
        state = state * carry[:, index, :, :, None, None] + updates[:, index]

    carried = C @ torch.stack(before, dim=1).flatten(3, 4).transpose(-1, -2)  # (…, chunk, heads a group * head_dim)
    carried = carried.unflatten(-1, (-1, head_dim)).transpose(-2, -3)
    y = y + carried * from_start.unsqueeze(-1)
    y = y.permute(0, 1, 4, 2, 3, 5).reshape(batch, num_chunks * chunk, heads, head_dim)[:, :length]
    if D is not None:
        y = y + x.float() * D.float().unsqueeze(-1)
    return y.to(x.dtype), state.flatten(1, 2)


def step_size(dt: torch.Tensor, dt_bias: torch.Tensor | None, dt_limit: tuple[float, float]) -> torch.Tensor:
    """softplus(dt + bias) in float32, clamped."""
    dt = dt.float() if dt_bias is None else dt.float() + dt_bias.float()
    dt = nn.functional.softplus(dt)
    return dt if tuple(dt_limit) == (0.0, math.inf) else dt.clamp(*dt_limit)


def decay_mask(decay: torch.Tensor, sequence: torch.Tensor | None) -> torch.Tensor:
    """
    exp(sum of the decays between two tokens), zero above the diagonal and across packed sequences.

    `decay` (..., chunk) is cumulative. The mask goes in before exp: above the diagonal the exponent is positive and
    would overflow for large steps, and a gradient of 0 * inf is NaN.
    """
    chunk = decay.shape[-1]
    allowed = torch.ones(chunk, chunk, dtype=torch.bool, device=decay.device).tril()
    if sequence is not None:
        allowed = allowed & (sequence.unsqueeze(-1) == sequence.unsqueeze(-2))[:, :, None, None]
    return (decay.unsqueeze(-1) - decay.unsqueeze(-2)).masked_fill(~allowed, -math.inf).exp()


def chunk_seq_idx(seq_idx: torch.Tensor, padding: int, num_chunks: int) -> torch.Tensor:
    """(batch, length) -> (batch, chunks, chunk); the padding belongs to the last sequence."""
    if padding:
        seq_idx = torch.cat([seq_idx, seq_idx[:, -1:].expand(-1, padding)], dim=1)
    return seq_idx.unflatten(1, (num_chunks, -1))


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
        state: (batch, heads, head_dim, state) float32, contiguous; changed in place, nothing of its size is allocated.
        x: (batch, heads, head_dim) input.
        dt: (batch, heads) step size before softplus.
        A, D, dt_bias: (heads,) as in `ssd_scan`.
        B, C: (batch, groups, state) projections.

    Returns:
        y: (batch, heads, head_dim) in the dtype of `x`.
    """
    batch, heads, head_dim = x.shape
    groups, state_size = B.shape[1:]
    dt = step_size(dt, dt_bias, dt_limit)
    state.mul_(torch.exp(dt * A.float())[..., None, None])
    grouped = state.view(batch * groups, -1, state_size)  # (batch * groups, heads a group * head_dim, state)
    inputs = (x.float() * dt.unsqueeze(-1)).view(batch * groups, -1, 1)
    grouped.baddbmm_(inputs, B.float().reshape(batch * groups, 1, state_size))
    y = torch.bmm(grouped, C.float().reshape(batch * groups, state_size, 1)).view(batch, heads, head_dim)
    if D is not None:
        y = y + x.float() * D.float().unsqueeze(-1)
    return y.to(x.dtype)


__all__ = ["ssd_scan", "ssd_step"]

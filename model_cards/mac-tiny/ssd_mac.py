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
    length, groups, head_dim = x.shape[1], B.shape[2], x.shape[3]
    num_chunks = math.ceil(length / TARGET_CHUNK)
    dt = step_size(dt, dt_bias, dt_limit)
    log_decay = to_chunks(dt * A.float(), num_chunks).unflatten(3, (groups, -1)).permute(0, 1, 3, 4, 2)
    inputs = to_chunks(x.float() * dt.unsqueeze(-1), num_chunks).unflatten(3, (groups, -1)).permute(0, 1, 3, 4, 2, 5)
    B, C = to_chunks(B, num_chunks).transpose(2, 3), to_chunks(C, num_chunks).transpose(2, 3)
    # B, C: (batch, chunks, groups, chunk, state); inputs: (batch, chunks, groups, heads a group, chunk, head_dim)
    between, from_start = chunk_decays(log_decay, None if seq_idx is None else chunk_seq_idx(seq_idx, num_chunks))

    y = (between * (B @ C.transpose(-1, -2)).unsqueeze(3)).transpose(-1, -2) @ inputs  # inside the chunks

    updates = (inputs * between[..., -1:]).transpose(-1, -2).flatten(3, 4) @ B
    updates = updates.unflatten(3, (-1, head_dim))  # (..., heads a group, head_dim, state)
    states, final_state = carry_states(updates, from_start[..., -1], initial_state)
    carried = C @ states.flatten(3, 4).transpose(-1, -2)  # (..., chunk, heads a group * head_dim)
    y = y + carried.unflatten(-1, (-1, head_dim)).transpose(-2, -3) * from_start.unsqueeze(-1)

    y = y.permute(0, 1, 4, 2, 3, 5).flatten(3, 4).flatten(1, 2)[:, :length]
    if D is not None:
        y = y + x.float() * D.float().unsqueeze(-1)
    return y.to(x.dtype), final_state


def to_chunks(tensor: torch.Tensor, num_chunks: int) -> torch.Tensor:
    """(batch, length, ...) -> float32 (batch, chunks, chunk, ...), filled up with zeros: less than a token a chunk."""
    padding = -tensor.shape[1] % num_chunks
    if padding:
        tensor = nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, padding))
    return tensor.float().unflatten(1, (num_chunks, -1))


def chunk_seq_idx(seq_idx: torch.Tensor, num_chunks: int) -> torch.Tensor:
    """(batch, length) -> (batch, chunks, chunk); the padding belongs to the last sequence."""
    padding = -seq_idx.shape[1] % num_chunks
    return torch.cat([seq_idx, seq_idx[:, -1:].expand(-1, padding)], dim=1).unflatten(1, (num_chunks, -1))


def chunk_decays(log_decay: torch.Tensor, sequence: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    What is left of a token's contribution, and of the state before the chunk, at every token of the chunk.

    Args:
        log_decay: (batch, chunks, groups, heads a group, chunk) logarithm of each token's decay.
        sequence: (batch, chunks, chunk) packed sequence of each token; nothing is left in another one.

    Returns:
        between: (..., token, later token), 0 below the diagonal; from_start: (..., chunk).
    """
    chunk = log_decay.shape[-1]
    allowed = torch.ones(chunk, chunk, dtype=torch.bool, device=log_decay.device).triu()
    from_start = log_decay.cumsum(-1).exp()
    if sequence is not None:
        allowed = allowed & (sequence.unsqueeze(-1) == sequence.unsqueeze(-2))[:, :, None, None]
        first = torch.cat([sequence[:, :1, 0], sequence[:, :-1, -1]], dim=1).unsqueeze(-1)  # of the state carried in
        from_start = from_start * (sequence == first)[:, :, None, None]
    # Summed from token to token, not as a difference of running sums: that would forget the small decays that follow
    # a large one. The mask goes in before exp, where 0 * inf could make a gradient NaN.
    sums = log_decay.unsqueeze(-2).expand(*log_decay.shape, chunk).triu(1).cumsum_(-1)
    return sums.masked_fill_(~allowed, -math.inf).exp_(), from_start


def carry_states(
    updates: torch.Tensor, decay: torch.Tensor, initial_state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The recurrence from chunk to chunk.

    Args:
        updates: (batch, chunks, groups, heads a group, head_dim, state) what each chunk adds by its end.
        decay: (batch, chunks, groups, heads a group) what it leaves of the state before it.
        initial_state: (batch, heads, head_dim, state); zeros if None.

    Returns:
        The states before each chunk, shaped as `updates`, and the final state, (batch, heads, head_dim, state).
    """
    if initial_state is None:
        state = torch.zeros_like(updates[:, 0])
    else:
        state = initial_state.float().unflatten(1, (updates.shape[2], -1))
    before = []
    for index in range(updates.shape[1]):
        before.append(state)
        state = state * decay[:, index, :, :, None, None] + updates[:, index]
    return torch.stack(before, dim=1), state.flatten(1, 2)


def step_size(dt: torch.Tensor, dt_bias: torch.Tensor | None, dt_limit: tuple[float, float]) -> torch.Tensor:
    """softplus(dt + bias) in float32, clamped."""
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

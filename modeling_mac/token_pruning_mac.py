"""
TopK token pruning (arXiv 2504.01690): inside some blocks, only the patches that attention looks at most go on.

Differs from the published code in one point: kept patches stay in the order of time, not of falling score, so that
what comes after can still read them as a sequence or put them back on their grid.
"""

import math

import torch


def patch_scores(
    query: torch.Tensor, key: torch.Tensor, scaling: float, score: str, summary_tokens: int = 1
) -> torch.Tensor:
    """
    How much a block's attention looks at each patch.

    Args:
        query, key: (windows, heads, summary tokens + patches, head dim).
        scaling: Of their products, before the softmax.
        score: "cls": attention that the first token pays (AST); "mean": what all patches pay, on average (AudioMAE).
        summary_tokens: Tokens in front of the patches, which have no score.

    Returns:
        (windows, patches) mean over the heads.
    """
    rows = query[:, :, :1] if score == "cls" else query[:, :, summary_tokens:]
    attention = (rows @ key.transpose(2, 3) * scaling).softmax(dim=-1, dtype=torch.float32)
    return attention[..., summary_tokens:].mean(dim=(1, 2))


def patch_statistics(input_features: torch.Tensor, patch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    (windows, frames, mel bins) -> each patch's mean, its "intensity", and standard deviation, (windows, patches).

    The published code can prune by these in place of attention, but gathers from the sequence with its summary tokens
    by indices that count patches only, and so keeps the patch before the one it means. Here both count the same.
    """
    patches = input_features.unfold(1, patch_size, patch_size).unfold(2, patch_size, patch_size)
    cells = patches.flatten(3).flatten(1, 2).float()  # (windows, patches, cells)
    return cells.mean(dim=2), cells.std(dim=2)


def num_kept(patches: int, keep_rate: float) -> int:
    """Patches that one pruning keeps of so many."""
    return math.ceil(keep_rate * patches)


def top_patches(scores: torch.Tensor, kept: int) -> torch.Tensor:
    """(windows, patches) -> (windows, kept) the patches with the highest scores, in the order they stand in."""
    return scores.topk(kept, dim=1).indices.sort(dim=1).values


def gather_tokens(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(windows, tokens, dim) at (windows, n) -> (windows, n, dim)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


def scatter_tokens(tokens: torch.Tensor, index: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """`tokens` with (windows, n, dim) `new` ones at (windows, n)."""
    return tokens.scatter(1, index.unsqueeze(-1).expand_as(new), new)


def keep_rate_at(progress: float, keep_rate: float) -> float:
    """The rate on its way from 1 to `keep_rate` along half a cosine; progress in 0..1."""
    return keep_rate + (1.0 - keep_rate) * (math.cos(math.pi * progress) + 1.0) / 2.0


__all__ = [
    "gather_tokens",
    "keep_rate_at",
    "num_kept",
    "patch_scores",
    "patch_statistics",
    "scatter_tokens",
    "top_patches",
]

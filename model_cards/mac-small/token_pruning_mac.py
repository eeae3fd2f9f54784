"""
TopK token pruning (arXiv 2504.01690): some blocks pass on only the patches that attention looks at most.

This differs from the published code in one point. Kept patches stay in the order of time and are not sorted by score,
so that later layers can still read them as a sequence or put them back on their grid.
"""

import math

import torch


def patch_scores(
    query: torch.Tensor, key: torch.Tensor, scaling: float, score: str, summary_tokens: int = 1
) -> torch.Tensor:
    """
    Score each patch by the attention that a block pays to it.

    Args:
        query: Queries of the block, (windows, heads, summary tokens + patches, head dim).
        key: Keys of the block, in the same shape.
        scaling: Factor of the products of queries and keys, before the softmax.
        score: Whose attention counts: "cls" for that of the first token (as for AST), "mean" for the average over all
            patches (as for AudioMAE).
        summary_tokens: Number of tokens in front of the patches, which get no score.

    Returns:
        Score of every patch, (windows, patches), the mean over the heads.
    """
    rows = query[:, :, :1] if score == "cls" else query[:, :, summary_tokens:]
    # (windows, heads, 1 or patches, summary tokens + patches)
    attention = (rows @ key.transpose(2, 3) * scaling).softmax(dim=-1, dtype=torch.float32)
    return attention[..., summary_tokens:].mean(dim=(1, 2))  # (windows, patches)


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
    """Return how many of `patches` patches one pruning keeps; a fraction of a patch is rounded up."""
    return math.ceil(keep_rate * patches)


def top_patches(scores: torch.Tensor, kept: int) -> torch.Tensor:
    """Find the patches with the highest scores: (windows, patches) -> indices (windows, kept) in rising order."""
    return scores.topk(kept, dim=1).indices.sort(dim=1).values


def gather_tokens(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Take the tokens at `index`: (windows, tokens, dim) at (windows, n) -> (windows, n, dim)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


def scatter_tokens(tokens: torch.Tensor, index: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Return a copy of `tokens`, (windows, tokens, dim), with `new`, (windows, n, dim), at `index`, (windows, n)."""
    return tokens.scatter(1, index.unsqueeze(-1).expand_as(new), new)


def keep_rate_at(progress: float, keep_rate: float) -> float:
    """
    Return the keep rate at a point of training, on its way from 1 to `keep_rate` along half a cosine.

    Args:
        progress: Share of the training that is done, from 0 to 1.
        keep_rate: Share of the patches that is kept at the end, above 0 and at most 1.
    """
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

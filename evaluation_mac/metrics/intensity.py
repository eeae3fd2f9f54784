"""
Which patches an encoder looks at: the loud ones? (The analyses of arXiv 2504.01690, on any EAT.)

A patch's intensity is the mean of its normalised log-mel cells. Patches of all recordings fall into five clusters of
intensity, C1 the lowest. Asked is, at each block, whether the rank of a patch's cluster agrees with the attention it
gets (Kendall), and how many patches of each cluster are left at the end when the encoder prunes.

Two points differ from the published analysis. Its correlation counts ties as agreement, so that chance gives 0.2 and
more; it is given as published, with its chance level, and beside it over pairs of different clusters alone, where
chance gives 0. And padding is left out: after normalisation, zeros are louder than most sounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from modeling_mac import EatModel
from modeling_mac.modeling_eat import EatAttention
from modeling_mac.token_pruning_mac import patch_scores, patch_statistics


CLUSTERS = 5


@dataclass
class WindowPatches:
    """
    The patches of one window that hold sound.

    Args:
        intensity: (patches,).
        scores: (blocks, patches) attention that each gets.
        kept: (patches,) whether it is left when the encoder prunes.
    """

    intensity: np.ndarray
    scores: np.ndarray
    kept: np.ndarray


@torch.inference_mode()
def look_at(tower: EatModel, extractor: Any, audio: Any, keep_rate: float) -> Iterator[WindowPatches]:
    """The windows of a recording, each through the encoder unpruned and pruned."""
    log_mel = extractor.raw_log_mel(extractor.load(audio)[0])
    size, columns = tower.config.patch_size, tower.config.grid[1]
    sounding = len(log_mel) // size * columns  # patches without padding
    for window in extractor.to_windows(log_mel).to(tower.device).split(1):
        count = min(sounding, window.shape[1] // size * columns)
        sounding -= count
        if not count:
            return
        intensity = patch_statistics(window, size)[0][0, :count]
        scores = attention_scores(tower, window)[:, :count]
        tower.config.keep_rate = keep_rate
        places = tower(window).kept_patches
        kept = torch.ones(window.shape[1] // size * columns, dtype=torch.bool)
        if places is not None:
            kept = torch.zeros_like(kept).scatter(0, places[0].cpu(), True)
        yield WindowPatches(intensity.cpu().numpy(), scores.cpu().numpy(), kept[:count].numpy())


def attention_scores(tower: EatModel, window: torch.Tensor) -> torch.Tensor:
    """(blocks, patches) what each patch would be kept by, in the encoder without pruning."""
    found: list[torch.Tensor] = []
    score = tower.config.pruning_score
    tower.config.keep_rate = 1.0

    def record(module: EatAttention, inputs: tuple[torch.Tensor]) -> None:
        qkv = module.qkv(inputs[0]).unflatten(2, (3, module.num_heads, module.head_dim))
        query, key, _ = qkv.permute(2, 0, 3, 1, 4)
        found.append(patch_scores(query, key, module.scaling, score)[0])

    hooks = [
        module.register_forward_pre_hook(record) for module in tower.modules() if isinstance(module, EatAttention)
    ]
    try:
        tower(window)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found)


def cluster_edges(values: np.ndarray, clusters: int = CLUSTERS) -> np.ndarray:
    """Upper edges of all clusters but the highest, by k-means in one dimension from the quantiles."""
    centers = np.quantile(values, (np.arange(clusters) + 0.5) / clusters)
    for _ in range(200):
        edges = (centers[1:] + centers[:-1]) / 2
        members = np.digitize(values, edges)
        sums, counts = np.bincount(members, values, clusters), np.bincount(members, minlength=clusters)
        moved = np.where(counts > 0, sums / np.maximum(counts, 1), centers)
        if np.allclose(moved, centers, atol=1e-6):
            break
        centers = moved
    return (centers[1:] + centers[:-1]) / 2


def kendall(clusters: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    """
    How far the order of clusters and that of scores agree over all pairs of patches.

    Returns:
        As published, ties counted as agreement; what chance would give by that count; over pairs of different
        clusters (NaN if there are none).
    """
    ranks = np.sign(clusters[:, None] - clusters[None, :])
    order = np.sign(scores[:, None] - scores[None, :])
    upper = np.triu_indices(len(clusters), 1)
    products, tied = (ranks * order)[upper], (ranks == 0)[upper]
    published = float(np.mean(np.where(products >= 0, 1.0, -1.0)))
    return published, float(tied.mean()), float(products[~tied].mean()) if not tied.all() else float("nan")


@dataclass
class Intensities:
    """
    What was found over all windows.

    Args:
        edges: (clusters - 1,) upper edges of intensity.
        shares: (clusters,) of all patches.
        kept: (clusters,) share that is left after pruning.
        published, untied: (windows, blocks) the two correlations; see `kendall`.
        chance: (windows,) what chance gives as published.
    """

    edges: np.ndarray
    shares: np.ndarray
    kept: np.ndarray
    published: np.ndarray
    untied: np.ndarray
    chance: np.ndarray


def analyse(windows: Sequence[WindowPatches]) -> Intensities:
    """Clusters over all windows, correlations window by window."""
    edges = cluster_edges(np.concatenate([window.intensity for window in windows]))
    members = [np.digitize(window.intensity, edges) for window in windows]
    found = np.array(
        [[kendall(ranks, scores) for scores in w.scores] for ranks, w in zip(members, windows, strict=True)]
    )  # (windows, blocks, 3)
    every = np.concatenate(members)
    counts = np.bincount(every, minlength=CLUSTERS)
    kept = np.bincount(every, np.concatenate([window.kept for window in windows]), CLUSTERS)
    return Intensities(
        edges, counts / counts.sum(), kept / np.maximum(counts, 1), found[..., 0], found[..., 2], found[:, 0, 1]
    )

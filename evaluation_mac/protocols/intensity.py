"""`mac-eval intensity`: the analysis of loud and quiet patches over a manifest, with its picture."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from evaluation_mac.metrics.bootstrap import mean_of, weighted_intervals
from evaluation_mac.metrics.intensity import CLUSTERS, Intensities, WindowPatches, analyse, look_at
from evaluation_mac.reports.evaluation import RESAMPLES, Evaluation
from modeling_mac import EatModel


def look_at_all(
    captioner: Any, files: Sequence[str], keep_rate: float, failed: dict[str, str]
) -> Iterator[tuple[str, WindowPatches]]:
    """
    The windows of all recordings; `failed` takes those that cannot be read.

    Raises:
        ValueError: the model's encoder has no patches and attention of this kind.
    """
    tower = captioner.model.model.audio_tower
    if not isinstance(tower, EatModel):
        raise ValueError(f"the analysis of patches is for an EAT; this model's encoder is {tower.config.model_type!r}")
    for file in files:
        try:
            for window in look_at(tower, captioner.processor.feature_extractor, file, keep_rate):
                yield file, window
        except ValueError as error:
            failed[file] = str(error)


def evaluate_intensity(named: Sequence[tuple[str, WindowPatches]], folder: Path, keep_rate: float) -> Evaluation:
    """Scores with intervals over windows, a row a window, and `intensity.png` where matplotlib is installed."""
    found = analyse([window for _, window in named])
    scores = {f"kept_of_c{cluster + 1}": float(share) for cluster, share in enumerate(found.kept)}
    scores |= {f"share_of_c{cluster + 1}": float(share) for cluster, share in enumerate(found.shares)}
    scores |= {f"upper_edge_of_c{cluster + 1}": float(edge) for cluster, edge in enumerate(found.edges)}
    correlations = {"kendall_as_published_by_chance": found.chance}
    for block in range(found.published.shape[1]):
        correlations[f"kendall_as_published_block_{block}"] = found.published[:, block]
        correlations[f"kendall_block_{block}"] = found.untied[:, block]
    intervals = weighted_intervals(
        lambda counts: {name: mean_of(values, counts) for name, values in correlations.items()}, len(named), RESAMPLES
    )
    scores |= {name: mean_of(values, np.ones(len(named))) for name, values in correlations.items()}
    rows = [
        {"audio": file, "patches": len(window.intensity), "intensity": float(window.intensity.mean()),
         "kept": float(window.kept.mean())}
        for file, window in named
    ]  # fmt: skip
    if find_spec("matplotlib"):
        draw(folder / "intensity.png", found, keep_rate)
    return Evaluation(scores, intervals, rows)


def draw(path: Path, found: Intensities, keep_rate: float) -> None:
    """Left: agreement of loudness and attention by block; right: how much of each cluster is left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    blocks = np.arange(found.published.shape[1])
    left.plot(blocks, found.published.mean(axis=0), "o-", label="as published (ties agree)")
    left.axhline(found.chance.mean(), color="tab:blue", linestyle=":", label="the same by chance")
    left.plot(blocks, np.nanmean(found.untied, axis=0), "s-", color="tab:orange", label="pairs of different clusters")
    left.axhline(0, color="tab:orange", linestyle=":")
    left.set_xticks(blocks)
    left.set_xlabel("block")
    left.set_ylabel("Kendall, intensity and attention")
    left.legend(fontsize=8)
    edges = [f"≤ {edge:.2f}" for edge in found.edges] + [f"> {found.edges[-1]:.2f}"]
    names = [
        f"C{n + 1}\n{edge}\n{share:.0%} of all"
        for n, (edge, share) in enumerate(zip(edges, found.shares, strict=True))
    ]
    right.bar(range(CLUSTERS), found.kept)
    right.axhline(float(found.kept @ found.shares), color="black", linestyle=":", label="all patches")
    right.set_xticks(range(CLUSTERS), names, fontsize=8)
    right.set_ylim(0, 1)
    right.set_ylabel(f"share that is left, keep rate {keep_rate:g}")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=130)

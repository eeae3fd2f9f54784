"""An evaluation as pictures: scores with their intervals, what is taken for what, ranks. Needs matplotlib."""

from collections import defaultdict
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from evaluation_mac.reports.evaluation import Evaluation


# Scores that do not go from 0 to 1, by what they go to: these have an axis of their own.
SCALES = {
    "cider_d": "on a scale of 0 to 10",
    "spider": "on a scale of 0 to 10",
    "length": "words",
    "vocabulary": "words",
}


def by_scale(names: Iterable[str]) -> dict[str, list[str]]:
    """Sort scores into those of one scale; those that are fractions of 1 come first, under ""."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[SCALES.get(name, "")].append(name)
    return dict(sorted(groups.items()))


def draw_plots(folder: Path, evaluation: Evaluation) -> bool:
    """Write `scores.png` and, where there are any, `confusion.png` and `ranks.png`; False without matplotlib."""
    if find_spec("matplotlib") is None:
        return False
    draw_scores(folder / "scores.png", evaluation)
    if evaluation.confusion:
        draw_confusion(folder / "confusion.png", evaluation.labels, np.array(evaluation.confusion))
    if evaluation.ranks:
        draw_ranks(folder / "ranks.png", evaluation.ranks)
    return True


def draw_scores(path: Path, evaluation: Evaluation) -> None:
    """A point and its interval for every score but ranks, an axis a scale."""
    from matplotlib.figure import Figure

    groups = by_scale(name for name in evaluation.intervals if not name.endswith("median_rank"))
    heights = [0.8 + 0.35 * len(names) for names in groups.values()]
    figure = Figure(figsize=(6, 0.3 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (scale, names) in zip(panels, groups.items(), strict=True):
        bounds = np.array([evaluation.intervals[name] for name in names]).T
        axes.plot([evaluation.scores[name] for name in names], range(len(names)), "o")
        axes.hlines(range(len(names)), *bounds)  # a bar of its own: a percentile interval need not hold the score
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        if not scale and bounds.min() >= 0 and bounds.max() <= 1:
            axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"95 % intervals{scale and f', {scale}'}")
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path)


def draw_confusion(path: Path, labels: list[str], counts: np.ndarray) -> None:
    """Shares of each true label's clips, a row a label."""
    from matplotlib.figure import Figure

    size = 3 + 0.18 * len(labels)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(counts / counts.sum(axis=1, keepdims=True).clip(min=1), cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    figure.colorbar(image, label="share of the label's clips")
    figure.savefig(path)


def draw_ranks(path: Path, ranks: dict[str, list[int]]) -> None:
    """How often the first hit comes at which rank, one histogram a direction."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(ranks), 3.5), layout="constrained")
    titles = {"t2a": "text to audio", "a2t": "audio to text"}
    for axes, (name, values) in zip(figure.subplots(1, len(ranks), squeeze=False)[0], ranks.items(), strict=True):
        axes.hist(values, bins=np.linspace(0.5, max(values) + 0.5, min(50, max(values)) + 1).tolist())
        axes.set_title(titles[name])
        axes.set_xlabel("rank of the first hit")
        axes.set_ylabel("queries")
    figure.savefig(path)

"""An evaluation as pictures: scores with their intervals, what is taken for what, ranks. Needs matplotlib."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from evaluation_mac.reports.evaluation import Evaluation


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
    """A point and its interval for every score that is a fraction."""
    from matplotlib.figure import Figure

    shown = {n: i for n, i in evaluation.intervals.items() if not n.endswith("median_rank")}
    values = np.array([evaluation.scores[name] for name in shown])
    bounds = np.array(list(shown.values())).T
    figure = Figure(figsize=(6, 1 + 0.35 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.plot(values, range(len(shown)), "o")
    axes.hlines(range(len(shown)), *bounds)  # a bar of its own: a percentile interval need not hold the score
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.set_xlabel("score, with its 95 % interval")
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

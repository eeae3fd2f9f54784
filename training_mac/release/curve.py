"""The curve of a training as a picture, which lies beside the model and stands in its card. Needs matplotlib."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluation_mac.reports.plots import by_scale
from processing_mac.whole_files_mac import write_file_whole
from training_mac.recipe.evaluations import best_evaluation, shown_scores
from training_mac.recipe.file import Stage


CURVE = "training.png"
COLUMNS = 3  # panels beside each other
LOSSES = {"loss": "training", "eval_loss": "validation"}
Points = list[tuple[int, float]]


def draw_curve(folder: Path, states: Sequence[Mapping[str, Any]], stages: Sequence[Stage]) -> bool:
    """
    Draw the losses of each stage and, where it was validated, its scores, a panel a scale.

    Args:
        folder: Folder that `CURVE` is written to.
        states: The Trainer's state at the end of each stage.
        stages: The stages of the run.

    Returns:
        Whether it was drawn: there is matplotlib, and something was logged.
    """
    panels = [panel for number, pair in enumerate(zip(states, stages, strict=True), start=1)
              for panel in stage_panels(number, *pair)]  # fmt: skip
    if find_spec("matplotlib") is None or not panels:
        return False
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.2 * rows), layout="constrained", dpi=110)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, lines, best) in zip(grid, panels, strict=False):
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else None, label=name)
        if best is not None:
            axes.axvline(best, color="grey", linestyle=":", label=f"best, step {best}")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    with write_file_whole(folder / CURVE) as temporary:
        figure.savefig(temporary, format="png")
    return True


def stage_panels(
    number: int, state: Mapping[str, Any], stage: Stage
) -> list[tuple[str, dict[str, Points], int | None]]:
    """Give the panels of a stage: a title, the points of each line, and the step of the best evaluation."""
    log, training = state["log_history"], stage.training
    best = best_evaluation(log, training.metric_for_best_model, training.greater_is_better)
    step = None if best is None else best["step"]
    losses = {label: points for name, label in LOSSES.items() if (points := read_points(log, name))}
    panels = [(f"stage {number}, {stage.recipe.objective}: loss", losses, step)] if losses else []
    names = dict.fromkeys(name for entry in log for name in shown_scores(entry) if name != "loss")
    for scale, group in by_scale(names).items():
        lines = {name: points for name in group if (points := read_points(log, f"eval_{name}"))}
        if lines:
            panels.append((f"stage {number}: scores{scale and f', {scale}'}", lines, step))
    return panels


def read_points(log: Sequence[Mapping[str, Any]], name: str) -> Points:
    """Read the (step, value) of each entry that has a finite value of this name."""
    return [(entry["step"], entry[name]) for entry in log if name in entry and math.isfinite(entry[name])]

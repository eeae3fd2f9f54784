"""What every protocol hands back."""

from dataclasses import dataclass, field
from typing import Any


RESAMPLES = 1000  # of a bootstrap interval


@dataclass
class Evaluation:
    """
    Scores of a model on a set of clips.

    Args:
        scores: {name: value}, fractions of 1 except ranks and lengths.
        intervals: {name: (low, high)}, 95 %, of most of them.
        clips: a row for every clip, all with the same keys.
        skipped: {metric: what it needs}, of metrics that cannot run here.
        missed: {sound: how many of its clips went wrong}, the most missed first.
        labels: the classes of `confusion`.
        confusion: (labels, labels) counts, row the true label, column the prediction.
        ranks: {direction: the rank of every query's first hit}.
    """

    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    clips: list[dict[str, Any]]
    skipped: dict[str, str] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    ranks: dict[str, list[int]] = field(default_factory=dict)

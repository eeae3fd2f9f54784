"""The result that every protocol returns."""

from dataclasses import dataclass, field
from typing import Any


RESAMPLES = 1000  # number of samples that are drawn for a bootstrap interval


@dataclass
class Evaluation:
    """
    Scores of a model on a set of clips.

    Args:
        scores: Value of each score by its name, as a fraction of 1 except for ranks and lengths.
        intervals: Low and high end of the 95 % interval of most scores, by their names.
        clips: Row of values for every clip, all with the same keys.
        skipped: Reason why a metric cannot run here, by the metric's name.
        missed: Number of clips that went wrong, by their sound, the most missed sound first.
        labels: Names of the classes of `confusion`.
        confusion: Counts of clips, (labels, labels), with the true labels as rows and the predictions as columns.
        ranks: Rank of every query's first hit, by the direction of the search.
    """

    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    clips: list[dict[str, Any]]
    skipped: dict[str, str] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    ranks: dict[str, list[int]] = field(default_factory=dict)

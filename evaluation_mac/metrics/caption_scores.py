"""What every metric hands back: per-caption statistics whose sum gives the corpus score."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class MetricUnavailable(RuntimeError):
    """A metric cannot run here; the message says what it needs."""


@dataclass(frozen=True)
class CaptionScores:
    """
    Scores that are a formula of sums over captions: BLEU of its n-gram counts, a mean of (score, 1).

    The same formula gives the score of one caption (its own row), of the corpus (the sum of all rows) and of a
    bootstrap resample (a weighted sum), exactly and without looking at any text again.
    """

    names: tuple[str, ...]
    statistics: np.ndarray  # (captions, k) float64
    formula: Callable[[np.ndarray], np.ndarray]  # (..., k) sums -> (..., len(names)) scores

    def per_caption(self) -> np.ndarray:
        """(captions, len(names)) scores of the single captions."""
        return self.formula(self.statistics)

    def corpus(self) -> np.ndarray:
        """(len(names),) scores of all captions together."""
        return self.formula(self.statistics.sum(axis=0))


def averaged(name: str, scores: np.ndarray | list[float]) -> CaptionScores:
    """A metric whose corpus score is the mean of its per-caption scores."""
    values = np.asarray(scores, dtype=np.float64)
    return CaptionScores(
        (name,), np.stack([values, np.ones_like(values)], axis=1), lambda sums: sums[..., :1] / sums[..., 1:]
    )

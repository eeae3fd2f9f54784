"""Bootstrap confidence intervals of corpus scores (Efron's percentile method; for BLEU: Koehn, EMNLP 2004).

A resample draws as many clips as there are, with replacement; a clip goes with its candidate and all its references.
Every metric is a formula of sums over captions, so a resample costs one weighted sum and no text is scored again.
BLEU and METEOR are so recomputed exactly from the resample's counts.

CIDEr-D is resampled as the mean of its per-caption scores, with the document frequencies of the whole set of clips:
they are part of how the test set defines the metric, as its references are. Counting them anew in each resample takes
repeated clips for common phrases: on Clotho's evaluation set intervals are as wide, but 0.004 too high.
"""

from collections.abc import Callable, Sequence

import numpy as np

from evaluation_mac.metrics.caption_scores import CaptionScores


_PERCENTILES = (2.5, 97.5)


def bootstrap_intervals(
    metrics: Sequence[CaptionScores], resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """
    The 95% interval of every corpus score, in the score's own unit.

    Args:
        metrics: Scores of the same captions by several metrics; they share the resamples, so that their
            intervals can be compared.
        resamples: Number of resamples to draw.
        seed: Seed of the draws; the same seed gives the same intervals.
    """
    if not metrics:
        return {}
    statistics = np.concatenate([metric.statistics for metric in metrics], axis=1)
    ends = np.cumsum([metric.statistics.shape[1] for metric in metrics])
    captions = len(statistics)
    generator = np.random.default_rng(seed)
    sums = np.stack(
        [
            np.bincount(generator.integers(captions, size=captions), minlength=captions) @ statistics
            for _ in range(resamples)
        ]
    )
    intervals: dict[str, tuple[float, float]] = {}
    for metric, columns in zip(metrics, np.split(sums, ends[:-1], axis=1), strict=True):
        low, high = np.percentile(metric.formula(columns), _PERCENTILES, axis=0)
        intervals |= {name: (float(low[i]), float(high[i])) for i, name in enumerate(metric.names)}
    return intervals


def weighted_intervals(
    score: Callable[[np.ndarray], dict[str, float]], items: int, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """
    The 95% interval of scores that are no formula of sums, such as a median or an average precision.

    Args:
        score: Function that takes how many times each item counts, (items,) integers, and gives the scores by name.
        items: Number of items to draw from.
        resamples: Number of resamples to draw.
        seed: Seed of the draws; the same seed gives the same intervals.
    """
    generator = np.random.default_rng(seed)
    drawn = [score(np.bincount(generator.integers(items, size=items), minlength=items)) for _ in range(resamples)]
    intervals = {}
    for name in drawn[0]:
        low, high = np.nanpercentile([scores[name] for scores in drawn], _PERCENTILES)
        intervals[name] = (float(low), float(high))
    return intervals


def mean_of(values: np.ndarray, counts: np.ndarray) -> float:
    """Mean of what is a number, each value so many times."""
    real = ~np.isnan(values)
    return float(np.average(values[real], weights=counts[real])) if counts[real].any() else float("nan")

"""Intervals are those of scoring resampled captions anew."""

import numpy as np
import pytest

from evaluation_mac import score_captions
from evaluation_mac.metrics.bootstrap import bootstrap_intervals, weighted_intervals
from evaluation_mac.metrics.caption_scores import averaged


def test_bleu_is_recomputed_exactly(golden_captions):
    clips = golden_captions["clips"]
    candidates, references = [clip["candidate"] for clip in clips], [clip["references"] for clip in clips]
    intervals = score_captions(candidates, references, ["bleu", "rouge_l"], resamples=50, seed=3)["intervals"]

    draw = np.random.default_rng(3)
    corpora = []
    for _ in range(50):
        rows = draw.integers(len(clips), size=len(clips))
        resampled = score_captions([candidates[i] for i in rows], [references[i] for i in rows], ["bleu", "rouge_l"])
        corpora.append(resampled["corpus"])
    for name in ("bleu_1", "bleu_4", "rouge_l"):
        expected = np.percentile([corpus[name] for corpus in corpora], [2.5, 97.5])
        assert intervals[name] == pytest.approx(expected, rel=1e-9), name


def test_of_a_mean_they_are_two_standard_errors_wide():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    low, high = bootstrap_intervals([averaged("mean", values)], resamples=2000)["mean"]
    error = values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error)


def test_the_seed_repeats_them():
    metrics = [averaged("mean", np.arange(30.0))]
    assert bootstrap_intervals(metrics, 100, seed=1) == bootstrap_intervals(metrics, 100, seed=1)
    assert bootstrap_intervals(metrics, 100, seed=1) != bootstrap_intervals(metrics, 100, seed=2)
    assert bootstrap_intervals([]) == {}


def test_of_any_score_by_weights():
    """A mean gets the interval it has as a formula of sums; a median's holds the median."""
    values = np.random.default_rng(0).normal(size=200)
    scores = weighted_intervals(
        lambda weights: {"mean": weights @ values / 200, "median": float(np.median(np.repeat(values, weights)))}, 200
    )
    assert scores["mean"] == pytest.approx(bootstrap_intervals([averaged("mean", values)])["mean"])
    assert scores["median"][0] < np.median(values) < scores["median"][1]

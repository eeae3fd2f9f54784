"""Classification against hand-computed values."""

import numpy as np
import pytest

from evaluation_mac.metrics.classification_scores import ZeroShotScores, confusion


ONES = np.ones(4, dtype=int)


def test_one_label_a_clip():
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.1, 0.6, 0.3], [0.2, 0.1, 0.5]])
    labels = np.eye(3, dtype=bool)[[0, 1, 1, 2]]
    scores = ZeroShotScores(similarity, labels).scores()
    # Predictions are 0, 0, 1, 2. F1: 2/3, 2/3, 1. AP: label 0 first; label 1 first and second; label 2 first.
    assert scores == pytest.approx({"accuracy": 3 / 4, "micro_f1": 3 / 4, "macro_f1": 7 / 9, "map": 1.0})
    assert confusion(similarity, labels).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_several_labels_a_clip_and_a_label_that_none_has():
    similarity = np.array([[0.9, 0.8, 0.0], [0.5, 0.6, 0.0], [0.7, 0.1, 0.0]])
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=bool)
    scores = ZeroShotScores(similarity, labels).scores()
    # Predictions 0, 1, 0: one true positive, four true labels, three guesses.
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert scores["micro_f1"] == pytest.approx(2 / 7)
    assert scores["macro_f1"] == pytest.approx((2 / 4 + 0) / 2)
    # Label 0 is ranked clip 0, 2, 1: (1 + 2/3) / 2; label 1 is ranked clip 0, 1, 2: (1 + 2/3) / 2.
    assert scores["map"] == pytest.approx(5 / 6)


def test_ties_are_one_step():
    """All equal: the precision is the share of positives, however they are ordered."""
    labels = np.array([[1], [0], [0], [1]], dtype=bool)
    assert ZeroShotScores(np.zeros((4, 1)), labels).average_precision(ONES) == pytest.approx([0.5])
    similarity = np.array([[2.0], [1.0], [1.0], [1.0]])
    assert ZeroShotScores(similarity, labels).average_precision(ONES) == pytest.approx([0.5 * 1 + 0.5 * 2 / 4])


def test_a_weight_is_a_repetition():
    generator = np.random.default_rng(0)
    similarity, labels = generator.normal(size=(6, 3)).round(1), np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]
    weights = np.array([2, 0, 1, 0, 3, 0])
    rows = np.repeat(np.arange(6), weights)
    assert ZeroShotScores(similarity, labels).scores(weights) == pytest.approx(
        ZeroShotScores(similarity[rows], labels[rows]).scores()
    )

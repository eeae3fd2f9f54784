"""Retrieval against hand-computed values."""

import numpy as np
import pytest

from evaluation_mac.metrics.retrieval_scores import (
    audio_to_text,
    find_relevant,
    retrieval_scores,
    scale_by_caption,
    text_to_audio,
)


# Caption 1 is the likeliest after any clip; caption 2 is equally likely after all.
LOSSES = np.array([[2.0, 1.0, 3.0], [4.0, 1.5, 3.0], [3.0, 2.0, 3.0]])


def test_text_to_audio_ranks_clips_by_their_loss():
    assert text_to_audio(LOSSES).tolist() == [[0, 2, 1], [0, 1, 2], [0, 1, 2]]


def test_audio_to_text_scales_each_caption_first_and_breaks_ties_by_the_loss():
    np.testing.assert_allclose(scale_by_caption(LOSSES), [[0, 0, 0], [1, 0.5, 0], [0.5, 1, 0]])
    assert audio_to_text(LOSSES).tolist() == [[1, 0, 2], [2, 1, 0], [2, 0, 1]]


def test_ranks_and_scores():
    order = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 2, 3]])
    relevant = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=bool)
    ranks, precisions = find_relevant(order, relevant)
    assert ranks.tolist() == [1, 2, 4]
    assert precisions == pytest.approx([1, (1 / 2 + 2 / 3) / 2, 1 / 4])
    assert retrieval_scores(ranks, precisions) == pytest.approx(
        {
            "recall_1": 1 / 3,
            "recall_5": 1.0,
            "recall_10": 1.0,
            "map_10": (1 + (1 / 2 + 2 / 3) / 2 + 1 / 4) / 3,
            "median_rank": 2.0,
        }
    )


def test_beyond_rank_ten():
    order = np.tile(np.arange(40), (3, 1))
    relevant = np.zeros((3, 40), dtype=bool)
    relevant[0, 10] = relevant[1, 9:29] = relevant[2, 5] = True  # ranks 11; 10 to 29; 6
    ranks, precisions = find_relevant(order, relevant)
    assert precisions == pytest.approx([0, 1 / 10 / 10, 1 / 6])
    scores = retrieval_scores(ranks, precisions)
    assert (scores["recall_5"], scores["recall_10"], scores["median_rank"]) == (0, pytest.approx(2 / 3), 10)


def test_a_weight_is_a_repetition():
    ranks, precisions = np.array([1, 3, 12]), np.array([1.0, 0.5, 0.0])
    rows = [0, 0, 2]
    assert retrieval_scores(ranks, precisions, np.array([2, 0, 1])) == retrieval_scores(ranks[rows], precisions[rows])

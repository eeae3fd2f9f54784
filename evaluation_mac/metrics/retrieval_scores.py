"""Retrieval, from losses to ranks to scores (Labbé et al., DCASE 2023): numbers in, numbers out."""

import numpy as np


def text_to_audio(losses: np.ndarray) -> np.ndarray:
    """(clips, captions) losses -> (captions, clips): for each caption the clips, the most likely first."""
    return np.argsort(losses.T, axis=1, kind="stable")


def audio_to_text(losses: np.ndarray) -> np.ndarray:
    """
    (clips, captions) losses -> (clips, captions): for each clip the captions, the best first.

    A common sentence is likely after any clip. So each caption's loss counts relative to its own least and greatest
    over all clips; captions that are equal in this are ordered by the loss itself.
    """
    return np.lexsort((losses, scale_by_caption(losses)), axis=1)


def scale_by_caption(losses: np.ndarray) -> np.ndarray:
    """(clips, captions) losses, each caption's brought to 0 (its likeliest clip) .. 1; all 0 if all are equal."""
    low, high = losses.min(axis=0), losses.max(axis=0)
    return (losses - low) / np.where(high > low, high - low, 1.0)


def find_relevant(order: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    How well each query finds what it should.

    Args:
        order: Indices of the items in the order found for each query, best first, (queries, items).
        relevant: Whether each item answers each query, (queries, items) bool; at least one a query does.

    Returns:
        (queries,) the rank of the first relevant item, from 1, and (queries,) the average precision at 10, where a
        query with r relevant items can reach min(r, 10) of them.
    """
    hits = np.take_along_axis(relevant, order, axis=1)
    top = hits[:, :10]
    precision = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    return hits.argmax(axis=1) + 1, (precision * top).sum(axis=1) / hits.sum(axis=1).clip(max=10)


def retrieval_scores(ranks: np.ndarray, precisions: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float]:
    """
    Scores over queries.

    Args:
        ranks: Rank of each query's first relevant item, from 1, (queries,).
        precisions: Average precision at 10 of each query, in 0..1, (queries,).
        weights: Number of times that each query counts, (queries,); once if None.

    Returns:
        `recall_1`, `recall_5`, `recall_10`: share of queries with a relevant item among the first so many;
        `map_10`: mean average precision at 10; `median_rank`: of the first relevant item.
    """
    weights = np.ones(len(ranks), dtype=int) if weights is None else weights
    scores = {f"recall_{k}": float(np.average(ranks <= k, weights=weights)) for k in (1, 5, 10)}
    scores["map_10"] = float(np.average(precisions, weights=weights))
    scores["median_rank"] = float(np.median(np.repeat(ranks, weights)))
    return scores

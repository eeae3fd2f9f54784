"""Classification, from similarities to scores: numbers in, numbers out. One label a clip or several."""

import numpy as np


def classification_scores(
    similarity: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
    """
    Scores of a zero-shot classifier, whose one prediction for a clip is the most similar label.

    Args:
        similarity: Score of each label for each clip, (clips, labels); the higher, the likelier.
        labels: Whether each label is true of each clip, (clips, labels) bool; at least one label a clip is.
        weights: Number of times that each clip counts, (clips,); once if None.

    Returns:
        `accuracy`: share of clips whose prediction is one of their labels; `micro_f1`, over all decisions (with one
        label a clip it equals the accuracy), and `macro_f1`, its mean over labels; `map`, the mean over labels of the
        average precision. Labels that no clip has are left out of the means.
    """
    weights = np.ones(len(labels), dtype=int) if weights is None else weights
    predicted = np.zeros_like(labels)
    predicted[np.arange(len(labels)), similarity.argmax(axis=1)] = True
    true_positives, positives, guesses = weights @ (labels & predicted), weights @ labels, weights @ predicted
    present = positives > 0
    f1 = 2 * true_positives / np.maximum(positives + guesses, 1)
    return {
        "accuracy": float(true_positives.sum() / weights.sum()),
        "micro_f1": float(2 * true_positives.sum() / (positives.sum() + guesses.sum())),
        "macro_f1": float(f1[present].mean()),
        "map": float(average_precision(similarity, labels, weights)[present].mean()),
    }


def average_precision(similarity: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(labels,) area under precision over recall, without interpolation; equal similarities count as one step."""
    order = np.argsort(-similarity, axis=0, kind="stable")
    ordered = np.take_along_axis(similarity, order, axis=0)
    is_last = np.concatenate([ordered[1:] != ordered[:-1], np.ones((1, labels.shape[1]), dtype=bool)])
    found = np.cumsum(np.take_along_axis(labels, order, axis=0) * weights[order], axis=0)
    seen = np.cumsum(weights[order], axis=0)
    total = found[-1].clip(min=1)
    result = np.zeros(labels.shape[1])
    for label, steps in enumerate(is_last.T):
        recall = found[steps, label] / total[label]
        precision = found[steps, label] / seen[steps, label].clip(min=1)
        result[label] = np.sum(np.diff(recall, prepend=0.0) * precision)
    return result


def confusion(similarity: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(labels, labels) counts: row the true label, column the prediction; a clip counts once for each label it has."""
    predictions = np.eye(labels.shape[1], dtype=int)[similarity.argmax(axis=1)]
    return labels.T.astype(int) @ predictions

"""Classification, from similarities to scores: numbers in, numbers out. One label a clip or several."""

import numpy as np


class ZeroShotScores:
    """
    Scores of a zero-shot classifier, whose one prediction for a clip is the most similar label.

    What does not depend on how often a clip counts is computed once, since a bootstrap asks a thousand times.

    Args:
        similarity: Score of each label for each clip, (clips, labels); the higher, the likelier.
        labels: Whether each label is true of each clip, (clips, labels) bool; at least one label a clip is.
    """

    def __init__(self, similarity: np.ndarray, labels: np.ndarray):
        self.labels = labels
        self.predicted = np.zeros_like(labels)
        self.predicted[np.arange(len(labels)), similarity.argmax(axis=1)] = True
        self.order = np.argsort(-similarity, axis=0, kind="stable")
        ordered = np.take_along_axis(similarity, self.order, axis=0)
        # Equal similarities count as one step: each clip's precision is that at the end of its step.
        is_last = np.concatenate([ordered[1:] != ordered[:-1], np.ones((1, labels.shape[1]), dtype=bool)])
        places = np.where(is_last, np.arange(len(labels))[:, None], len(labels))
        self.ends = np.minimum.accumulate(places[::-1], axis=0)[::-1]
        self.hits = np.take_along_axis(labels, self.order, axis=0)

    def scores(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """
        Score the clips, each counted so many times, (clips,); once if None.

        Returns:
            `accuracy`: share of clips whose prediction is one of their labels; `micro_f1`, over all decisions (with
            one label a clip it equals the accuracy), and `macro_f1`, its mean over labels; `map`, the mean over labels
            of the average precision. Labels that no clip has are left out of the means.
        """
        weights = np.ones(len(self.labels), dtype=int) if weights is None else weights
        true_positives, positives = weights @ (self.labels & self.predicted), weights @ self.labels
        guesses = weights @ self.predicted
        present = positives > 0
        f1 = 2 * true_positives / np.maximum(positives + guesses, 1)
        return {
            "accuracy": float(true_positives.sum() / weights.sum()),
            "micro_f1": float(2 * true_positives.sum() / (positives.sum() + guesses.sum())),
            "macro_f1": float(f1[present].mean()),
            "map": float(self.average_precision(weights)[present].mean()),
        }

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """(labels,) area under precision over recall, without interpolation; 0 for a label that no clip has."""
        counted = weights[self.order]
        hits = counted * self.hits
        found, seen = np.cumsum(hits, axis=0), np.cumsum(counted, axis=0)
        precision = np.take_along_axis(found / seen.clip(min=1), self.ends, axis=0)
        return (hits * precision).sum(axis=0) / found[-1].clip(min=1)


def confusion(similarity: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(labels, labels) counts: row the true label, column the prediction; a clip counts once for each label it has."""
    predictions = np.eye(labels.shape[1], dtype=int)[similarity.argmax(axis=1)]
    return labels.T.astype(int) @ predictions

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
        clips, self.count = labels.shape
        self.predicted = similarity.argmax(axis=1)
        self.order = np.argsort(-similarity, axis=0, kind="stable").astype(np.int32)
        ordered = np.take_along_axis(similarity, self.order, axis=0)
        # Equal similarities count as one step: all clips of a step have the precision of its last place.
        is_last = np.concatenate([ordered[1:] != ordered[:-1], np.ones((1, self.count), dtype=bool)])
        lasts = np.where(is_last, np.arange(clips, dtype=np.int32)[:, None], clips)
        lasts = np.minimum.accumulate(lasts[::-1], axis=0)[::-1]
        # The true pairs of clip and label, by label and then by place, since few pairs are true and only they count.
        self.label, place = np.nonzero(np.take_along_axis(labels, self.order, axis=0).T)
        self.clip = self.order[place, self.label]
        self.last = lasts[place, self.label]
        keys = self.label * clips + place
        self.until = np.searchsorted(keys, self.label * clips + self.last, side="right")  # true pairs up to the last

    def scores(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """
        Score the clips, each counted so many times, (clips,); once if None.

        Returns:
            `accuracy`: share of clips whose prediction is one of their labels; `micro_f1`, over all decisions (with
            one label a clip it equals the accuracy), and `macro_f1`, its mean over labels; `map`, the mean over labels
            of the average precision. Labels that no clip has are left out of the means.
        """
        weights = np.ones(len(self.order), dtype=int) if weights is None else weights
        counted = weights[self.clip]
        is_hit = self.predicted[self.clip] == self.label
        positives, true_positives = self.by_label(counted), self.by_label(counted * is_hit)
        guesses = np.bincount(self.predicted, weights, self.count)
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
        counted = weights[self.clip]
        found = np.concatenate([[0], np.cumsum(counted)])  # over all labels, one after another
        before = found[np.searchsorted(self.label, self.label)]
        seen = np.cumsum(weights.astype(np.int32)[self.order], axis=0, dtype=np.int32)[self.last, self.label]
        precision = (found[self.until] - before) / seen.clip(min=1)
        return self.by_label(counted * precision) / self.by_label(counted).clip(min=1)

    def by_label(self, values: np.ndarray) -> np.ndarray:
        """(labels,) sums of a value of each true pair."""
        return np.bincount(self.label, values, self.count)


def confusion(similarity: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(labels, labels) counts: row the true label, column the prediction; a clip counts once for each label it has."""
    predictions = np.eye(labels.shape[1], dtype=int)[similarity.argmax(axis=1)]
    return labels.T.astype(int) @ predictions

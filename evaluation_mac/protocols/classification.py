"""
Zero-shot classification by a captioner, in two ways.

By caption, as LTU, GAMA and SAM do it: a caption of the clip and "sound of LABEL" meet in a text encoder, and the
cosine is the score. By likelihood: "sound of LABEL" is scored as if it were the caption, each label relative to how
likely it is after the other clips.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from evaluation_mac.datasets.labelled_clips import LabelledClip
from evaluation_mac.metrics.bootstrap import weighted_intervals
from evaluation_mac.metrics.classification_scores import ZeroShotScores, confusion
from evaluation_mac.metrics.retrieval_scores import scale_by_caption
from evaluation_mac.reports.evaluation import RESAMPLES, Evaluation


MOST_CONFUSED = 100  # labels up to which a table of what is taken for what can be read


def similarity_by_likelihood(losses: np.ndarray) -> np.ndarray:
    """(clips, labels) losses of the labels' texts -> how likely each is, relative to the other clips: 0 .. -1."""
    return -scale_by_caption(losses)


def evaluate_classes(
    clips: Sequence[LabelledClip], labels: Sequence[str], similarity: np.ndarray, first: str | None = None
) -> Evaluation:
    """
    Accuracy, F1 and mean average precision with intervals, and, of up to 100 labels, what is taken for what.

    Args:
        clips: Clips with their true labels.
        labels: Names of all labels, in the order of the columns of `similarity`; some may be true of no clip.
        similarity: Score of each label for each clip, (clips, labels), higher where it is more likely.
        first: Score to name before the others, which is the one that is published for the data.
    """
    column = {label: place for place, label in enumerate(labels)}
    truth = np.zeros(similarity.shape, dtype=bool)
    for row, clip in enumerate(clips):
        truth[row, [column[label] for label in clip.labels]] = True
    predictions = [labels[place] for place in similarity.argmax(axis=1)]
    rows = [
        {
            "audio": clip.audio,
            "source": ";".join(clip.labels),
            "prediction": prediction,
            "accuracy": int(prediction in clip.labels),
            "similarity": float(scores.max()),
        }
        for clip, prediction, scores in zip(clips, predictions, similarity, strict=True)
    ]
    missed = Counter(
        label for row, clip in zip(rows, clips, strict=True) if not row["accuracy"] for label in clip.labels
    )
    zero_shot = ZeroShotScores(similarity, truth)
    scores = zero_shot.scores()
    absent = int((~truth.any(axis=0)).sum())
    return Evaluation(
        {name: scores[name] for name in sorted(scores, key=lambda name: name != first)},
        weighted_intervals(zero_shot.scores, len(clips), RESAMPLES),
        rows,
        skipped={f"macro_f1 and map of {absent} of {len(labels)} labels": "no clip has them"} if absent else {},
        missed=dict(missed.most_common()),
        labels=list(labels),
        confusion=confusion(similarity, truth).tolist() if len(labels) <= MOST_CONFUSED else [],
    )

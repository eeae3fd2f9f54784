"""
Zero-shot classification by a captioner, in two ways.

By caption, as LTU, GAMA and SAM do it: a caption of the clip and "sound of LABEL" meet in a text encoder, and the
cosine is the score. By likelihood: "sound of LABEL" is scored as if it were the caption, each label relative to how
likely it is after the other clips.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation_mac.metrics.bootstrap import weighted_intervals
from evaluation_mac.metrics.classification_scores import classification_scores, confusion
from evaluation_mac.metrics.retrieval_scores import scale_by_caption
from evaluation_mac.metrics.text_encoder import TextEncoder
from evaluation_mac.reports.evaluation import RESAMPLES, Evaluation
from processing_mac.dataset_mac import read_rows


@dataclass(frozen=True)
class LabelledClip:
    """A recording and what sounds in it."""

    audio: str
    labels: tuple[str, ...]


def read_labels(path: str | Path) -> list[LabelledClip]:
    """
    Read a `.csv` or `.jsonl` manifest with the columns `audio`, relative to the manifest's folder, and `source`: the
    clip's label, or several with ";" between them. Other columns do not matter.

    Raises:
        ValueError: no such file, another format, no rows, or rows without audio or source, with their line numbers.
    """
    path = Path(path)
    clips, bad = [], []
    for line, row in read_rows(path):
        labels = [label.strip() for label in str(row.get("source") or "").split(";")]
        labels = list(dict.fromkeys(filter(None, labels)))
        if row.get("audio") and labels:
            clips.append(LabelledClip(str(path.parent / row["audio"]), tuple(labels)))
        else:
            bad.append(f"line {line}: no `{'source' if row.get('audio') else 'audio'}`")
    if bad:
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ValueError(f"{path}: {'; '.join(bad[:5])}{more}.")
    if not clips:
        raise ValueError(f"{path}: holds no rows.")
    return clips


def label_names(clips: Sequence[LabelledClip]) -> list[str]:
    """All labels that occur, in order of the alphabet."""
    return sorted({label for clip in clips for label in clip.labels})


def label_text(label: str) -> str:
    """What stands for a label where captions are compared."""
    return f"sound of {label.replace('_', ' ')}"


def similarity_by_caption(captions: Sequence[str], labels: Sequence[str], encoder: TextEncoder) -> np.ndarray:
    """(clips, labels) cosines of each clip's caption and each label's text."""
    return encoder.embed_text(captions) @ encoder.embed_text([label_text(label) for label in labels]).T


def similarity_by_likelihood(losses: np.ndarray) -> np.ndarray:
    """(clips, labels) losses of the labels' texts -> how likely each is, relative to the other clips: 0 .. -1."""
    return -scale_by_caption(losses)


def evaluate_classes(clips: Sequence[LabelledClip], labels: Sequence[str], similarity: np.ndarray) -> Evaluation:
    """
    Accuracy, F1 and mean average precision with intervals, and what is taken for what.

    Args:
        clips: Clips with their true labels.
        labels: Names of all labels, in the order of the columns of `similarity`.
        similarity: Score of each label for each clip, (clips, labels), higher where it is more likely.
    """
    truth = np.array([[label in clip.labels for label in labels] for clip in clips])
    predictions = [labels[column] for column in similarity.argmax(axis=1)]
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
    return Evaluation(
        classification_scores(similarity, truth),
        weighted_intervals(lambda weights: classification_scores(similarity, truth, weights), len(clips), RESAMPLES),
        rows,
        missed=dict(missed.most_common()),
        labels=list(labels),
        confusion=confusion(similarity, truth).tolist(),
    )

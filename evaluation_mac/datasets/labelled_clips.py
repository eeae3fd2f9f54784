"""Recordings with their labels, as classification takes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation_mac.datasets.label_lists import LabelList
from processing_mac.dataset_mac import read_rows, summarize


@dataclass(frozen=True)
class LabelledClip:
    """A recording and what sounds in it."""

    audio: str
    labels: tuple[str, ...]


def read_labels(path: str | Path, audio_root: str | Path | None = None) -> list[LabelledClip]:
    """
    Read a `.csv` or `.jsonl` manifest with the columns `audio`, relative to `audio_root` or the manifest's folder, and
    `source`: the clip's label, or several with ";" between them. Other columns do not matter.

    Raises:
        ValueError: no such file, another format, no rows, or rows without audio or source, with their line numbers.
    """
    path = Path(path)
    root = path.parent if audio_root is None else Path(audio_root)
    clips, bad = [], []
    for line, row in read_rows(path):
        labels = [label.strip() for label in str(row.get("source") or "").split(";")]
        labels = list(dict.fromkeys(filter(None, labels)))
        if row.get("audio") and labels:
            clips.append(LabelledClip(str(root / row["audio"]), tuple(labels)))
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


def name_labels(clips: Sequence[LabelledClip], labels: LabelList) -> list[LabelledClip]:
    """
    The clips with their labels as the list spells them.

    Raises:
        ValueError: The list lacks labels of some clips; the message names clip and label.
    """
    named, problems = [], []
    for clip in clips:
        try:
            named.append(replace(clip, labels=tuple(dict.fromkeys(map(labels.find, clip.labels)))))
        except ValueError as error:
            problems.append(f"{clip.audio}: {error}")
    if problems:
        raise ValueError(summarize(problems, shown=5))
    return named

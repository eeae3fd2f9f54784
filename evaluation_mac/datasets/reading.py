"""The recordings that a task of `mac-eval` is about: those of a manifest, or of a data set by its published table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation_mac.datasets.label_lists import LabelList, read_label_list
from evaluation_mac.datasets.labelled_clips import LabelledClip, read_labels
from evaluation_mac.datasets.published import DATASETS, Recording, find_dataset, labels_of, read_published
from processing_mac.dataset_mac import Clip, read_manifest


CAPTIONS = ("captioning", "retrieval", "transcription")  # tasks that need captions; classification needs labels


def read_data(
    task: str, data: Path | None, dataset: str | None = None, audio_root: Path | None = None
) -> tuple[list[Any], Path | None]:
    """
    Read the clips of a manifest, or of a known data set whose recordings are in `audio_root`.

    Args:
        task: Task of `mac-eval`; classification takes `LabelledClip`s, the others `Clip`s.
        data: Manifest, or table of the data set; looked for if None.
        dataset: What the results call the data, maybe the name of a known data set.
        audio_root: Folder of the recordings; that of the manifest if None.

    Returns:
        The clips, and the file that was read; None where a data set has no table.

    Raises:
        ValueError: Nothing is named, or what is named cannot be read or is of no use to the task.
    """
    if audio_root and (known := find_dataset(dataset)):
        recordings, table = read_published(known, audio_root, data)
        return as_clips(DATASETS[known].title, recordings, task), table
    if data is None:
        raise ValueError(f"--data is missing, or --audio-root with a --dataset that is known: {', '.join(DATASETS)}")
    return (read_labels if task == "classification" else read_manifest)(data, audio_root), data


def as_clips(title: str, recordings: Sequence[Recording], task: str) -> list[Any]:
    """The recordings of a known data set as the task takes them."""
    if task == "classification":
        if not all(one.labels for one in recordings):
            raise ValueError(f"{title} has captions and no labels; it is for captioning and retrieval")
        return [LabelledClip(one.audio, one.labels) for one in recordings]
    if task in CAPTIONS and not all(one.captions for one in recordings):
        raise ValueError(f"{title} has labels and no captions; it is for classification, tokens and intensity")
    return [Clip(one.audio, one.captions, source="; ".join(one.labels) or None) for one in recordings]


def merge_rows(clips: Sequence[Clip]) -> list[Clip]:
    """Make one clip of the rows that differ in their captions alone, as AudioCaps has five of a recording."""
    merged: dict[Clip, Clip] = {}
    for clip in clips:
        key = replace(clip, captions=(), phrases=())
        known = merged.get(key, key)
        merged[key] = replace(key, captions=known.captions + clip.captions, phrases=known.phrases + clip.phrases)
    return list(merged.values())


def refuse_twice(place: str, clips: Sequence[Any]) -> None:
    """Refuse clips that name one recording twice."""
    times = Counter(clip.audio for clip in clips)
    twice = [f"{audio} is there {count} times" for audio, count in times.items() if count > 1]
    if twice:
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        raise ValueError(f"{place}: expected every recording once, but {'; '.join(twice[:5])}{more}")


def full_labels(labels: str | None, dataset: str | None) -> LabelList | None:
    """All labels: those of a list, or of a known data set; None for those that occur."""
    return read_label_list(labels) if labels else labels_of(find_dataset(dataset))

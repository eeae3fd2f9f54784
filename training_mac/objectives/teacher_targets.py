"""
What a teacher from elsewhere hears in recordings, and the tags of their stretches, kept in one file for training.

A script for the data writes it (`recipes/mix_everyday.py`), so that a teacher may be of any framework.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from processing_mac.dataset_mac import Clip
from processing_mac.whole_files_mac import write_file_whole


TEACHER_STEP = 0.96  # seconds from one embedding to the next, which is YAMNet's hop


class TeacherTargets:
    """
    The tags and the teacher's embeddings of some recordings.

    Args:
        tags: Names of all tags that may be heard, in the order of the targets.

    Attributes:
        files: Names of the recordings, without folder.
        embeddings: Embeddings of each recording, (frames, width) float16, one every `TEACHER_STEP` seconds.
        stretches: For each recording, a list of (first second, end second, ids of the tags).
        groups: For each recording, the groups of what it was mixed of, which `cross_fitted_tags` keeps apart.
    """

    def __init__(self, tags: Sequence[str]):
        self.tags = list(tags)
        self.ids = {tag: number for number, tag in enumerate(self.tags)}
        self.files: list[str] = []
        self.embeddings: list[torch.Tensor] = []
        self.stretches: list[list[tuple[float, float, list[int]]]] = []
        self.groups: list[list[str]] = []

    @property
    def width(self) -> int:
        """The size of an embedding."""
        return self.embeddings[0].shape[1]

    def add(
        self,
        file: str,
        embeddings: Any,
        stretches: Iterable[tuple[float, float, Iterable[str]]],
        groups: Iterable[str] = (),
    ) -> None:
        """Add one recording; `embeddings` are (frames, width), an array or tensor."""
        self.files.append(file)
        self.embeddings.append(torch.as_tensor(embeddings).half())
        told = [(first, end, sorted(self.ids[tag] for tag in tags)) for first, end, tags in stretches]
        self.stretches.append(told)
        self.groups.append(sorted(set(groups)))

    @classmethod
    def join(cls, parts: Sequence["TeacherTargets"]) -> "TeacherTargets":
        """
        Join the recordings of several sets of targets.

        Raises:
            ValueError: The sets have different tags, or two have a recording of the same name.
        """
        joined, known = cls(parts[0].tags), set[str]()
        for part in parts:
            if part.tags != joined.tags:
                raise ValueError("These teachers' targets have not the same tags: make them with one grammar.")
            if both := known.intersection(part.files):
                # Targets are found by the name alone, so one would silently stand for the other.
                raise ValueError(
                    f"Two of these teachers' targets have a recording named {min(both)}: give the folders other names."
                )
            known.update(part.files)
            joined.files += part.files
            joined.embeddings += part.embeddings
            joined.stretches += part.stretches
            joined.groups += part.groups
        return joined

    def save(self, path: Path) -> None:
        """Write all of it as one safetensors file."""
        told = json.dumps({"tags": self.tags, "files": self.files, "stretches": self.stretches, "groups": self.groups})
        counts = torch.tensor([len(one) for one in self.embeddings])
        with write_file_whole(path) as temporary:
            save_file({"embeddings": torch.cat(self.embeddings), "counts": counts}, temporary, {"told": told})

    @classmethod
    def load(cls, path: Path) -> "TeacherTargets":
        """
        Load what `save` wrote.

        Raises:
            ValueError: The file is missing or of another kind.
        """
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file; expected the targets of a teacher (see recipes/mix_everyday.py).")
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get("told", "null"))
            if told is None or not {"embeddings", "counts"} <= set(file.keys()):
                raise ValueError(f"{path}: no `embeddings` and `counts`; expected the targets of a teacher.")
            embeddings, counts = file.get_tensor("embeddings"), file.get_tensor("counts").tolist()
        targets = cls(told["tags"])
        targets.files, targets.embeddings = told["files"], list(embeddings.split(counts))
        targets.stretches = [[(first, end, ids) for first, end, ids in one] for one in told["stretches"]]
        targets.groups = told.get("groups", [[] for _ in targets.files])  # files of before have none
        return targets


def read_targets(paths: Sequence[str], clips: Iterable[Clip]) -> TeacherTargets:
    """
    Read the targets of some recordings from the one or several files that hold them.

    Raises:
        ValueError: A file is bad, or one of the recordings is in none of them.
    """
    targets = TeacherTargets.join([TeacherTargets.load(Path(path)) for path in paths])
    known = set(targets.files)
    if missing := [str(clip.audio) for clip in clips if Path(str(clip.audio)).name not in known]:
        raise ValueError(f"`teacher_targets` have nothing of {len(missing)} recordings, the first is {missing[0]}.")
    return targets

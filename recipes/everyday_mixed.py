"""
Reads the scenes that `mix_everyday.py` wrote: what is told of each, what is heard when, and whose recordings it is of.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from everyday_grammar import Grammar
from everyday_pupil import ROW_SECONDS
from prepare_esc50 import read_table

from training_mac.objectives.cross_fitting import masks_of
from training_mac.objectives.teacher_targets import TeacherTargets


@dataclass(frozen=True)
class Scene:
    """
    A scene.

    Args:
        audio: Its recording.
        relation: Relation of its events, as the grammar names it.
        events: Kind, first second and end second of each event, in the order in which they are told.
        stretches: First second, end second and ids of the tags of each stretch in which the same is heard.
        mask: Parts of the groups of its recordings, as `mask_of` gives them.
    """

    audio: Path
    relation: str
    events: list[tuple[str, float, float]]
    stretches: list[tuple[float, float, list[int]]]
    mask: int

    def unknown_as(self, grammar: Grammar) -> str | None:
        """The general kind of its only event; None if it has several, or a kind that has none."""
        return grammar.general_of(self.events[0][0]) if len(self.events) == 1 else None


def read_scenes(folders: Sequence[Path], grammar: Grammar, parts: int) -> list[list[Scene]]:
    """
    Read the scenes of folders.

    Args:
        folders: Folders of `mix_everyday.py`.
        grammar: Grammar whose tags are those of the scenes.
        parts: Number of parts that the groups of recordings fall into.

    Returns:
        The scenes of each folder.

    Raises:
        OSError: A folder has no `scenes.csv`.
        ValueError: A folder has no scenes, or not the targets of its scenes, or these have other tags or no groups; or
            a scene does not say what it is of.
    """
    sets = [TeacherTargets.load(folder / "targets.safetensors") for folder in folders]
    for folder, targets in zip(folders, sets, strict=True):
        if targets.tags != grammar.tags:
            raise ValueError(f"{folder}: its tags are not those of everyday_captions.yaml: mix it anew.")
    joined = TeacherTargets.join(sets)
    heard = dict(zip(joined.files, zip(joined.stretches, masks_of(joined, parts), strict=True), strict=True))
    return [read_folder(folder, grammar, heard) for folder in folders]


def read_folder(folder: Path, grammar: Grammar, heard: dict[str, tuple[list, int]]) -> list[Scene]:
    """Read the scenes of a folder, with the stretches and the mask of each by the name of its file."""
    scenes = []
    for row in read_table(folder / "scenes.csv"):
        if missing := {"audio", "relation", "events"} - row.keys():
            raise ValueError(f"{folder / 'scenes.csv'} has no column `{min(missing)}`: mix it anew.")
        if not row["events"]:
            raise ValueError(f"{row['audio']} does not say which recordings it is of, and when: mix it anew.")
        if row["audio"] not in heard:
            raise ValueError(f"{folder / 'targets.safetensors'} has nothing of {row['audio']}: mix it anew.")
        try:
            events = read_events(row["events"], row["relation"], grammar)
        except ValueError as error:
            raise ValueError(f"{folder / 'scenes.csv'}, {row['audio']}: {error}") from error
        scenes.append(Scene(folder / row["audio"], row["relation"], events, *heard[row["audio"]]))
    if not scenes:
        raise ValueError(f"{folder / 'scenes.csv'} has no scenes.")
    return scenes


def read_events(text: str, relation: str, grammar: Grammar) -> list[tuple[str, float, float]]:
    """
    Read the events of a scene: kind, first second and end second of each.

    Raises:
        ValueError: They are something else, of kinds that do not exist, or not as many as the relation has.
    """
    try:
        events = [(str(kind), float(first), float(end)) for kind, first, end in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"`events` is {text!r}; expected a list of [kind, first second, end second].") from error
    if unknown := [kind for kind, _, _ in events if kind not in grammar.kinds]:
        raise ValueError(f"{unknown[0]!r} is no kind of everyday_captions.yaml.")
    if not grammar.can_relate(relation, len(events)):
        raise ValueError(f"`relation` is {relation!r} for a scene of {len(events)}: mix it anew.")
    return events


def digest_of_scenes(scenes: Sequence[Scene]) -> str:
    """A hash of the names of scenes and of what is heard in them."""
    told = [(scene.audio.name, scene.relation, scene.events, scene.stretches, scene.mask) for scene in scenes]
    return hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()


def rows_between(first: float, end: float, heard: int) -> slice:
    """Find the rows of patches from a first to an end second, of so many that are heard; one at least."""
    begin, after = (int(second / ROW_SECONDS + 0.5) for second in (first, end))
    begin = min(begin, heard - 1)
    return slice(begin, max(begin + 1, min(after, heard)))

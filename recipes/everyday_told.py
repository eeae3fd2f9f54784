"""
What is told of a scene whose rows have scores of tags: no more than those scores show.

A kind that nobody could tell from them is told in general, and what nobody could tell beside another sound not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from everyday_grammar import Grammar
from everyday_mixed import Scene, rows_between
from everyday_rows import PADDING
from mix_everyday import AT_ONCE
from retell_everyday import BEHIND, UNLIKELY


AUDIBLE = 8  # rows; what could be told in so many one after another is told
FOLLOWING = {1: "single", 2: "followed_by"}  # relation of so many sounds one after another; of more, "sequence"


@dataclass(frozen=True, eq=False)
class Told:
    """
    Scores, and the names of what is to be told of them.

    Args:
        scores: Scores of the tags in each row, (rows, tags).
        names: Kinds to tell.
        relation: Relation between them.
    """

    scores: torch.Tensor
    names: list[str]
    relation: str = "single"

    def merge(self) -> "Told":
        """Tell neighbours that are told alike once."""
        names = [name for name, _ in groupby(self.names)]
        return self if names == self.names else Told(self.scores, names, relation_of(names))


class Teller:
    """
    Names what is heard in scenes.

    Args:
        grammar: Grammar whose kinds are named.
    """

    def __init__(self, grammar: Grammar):
        self.grammar = grammar
        self.ids = {tag: number for number, tag in enumerate(grammar.tags)}
        self.particular = [self.ids[name] for name in grammar.kinds if name not in grammar.general]

    def tell(self, scene: Scene, scores: torch.Tensor, heard: int) -> Told:
        """Name what is heard in a scene with scores (rows, tags), of which so many rows are no padding."""
        parts = [(kind, scores[rows_between(first, end, heard)]) for kind, first, end in scene.events]
        names = [self.name(*part) for part in parts]
        if scene.relation not in AT_ONCE:
            return Told(scores, names, scene.relation).merge()
        audible = [name for name, part in zip(names, parts, strict=True) if self.is_audible(*part)]
        return Told(scores, audible or names, scene.relation if len(audible) != 1 else "single").merge()

    def tell_unknown(self, scene: Scene, scores: torch.Tensor) -> Told:
        """Name the only sound of a scene as one does who has not learnt its kind: in general."""
        return Told(scores, [self.in_general(scene.events[0][0])])

    def sounds_of(
        self, scene: Scene, scores: torch.Tensor, heard: int, unknown: bool = False
    ) -> list[tuple[str, Told]]:
        """Take the sounds of a scene that are heard alone, each with its kind; those of unknown kinds are general."""
        if scene.relation in AT_ONCE:
            return []
        parts = [(kind, scores[rows_between(first, end, heard)]) for kind, first, end in scene.events]
        name = (lambda kind, part: self.in_general(kind)) if unknown else self.name
        return [(kind, Told(part, [name(kind, part)])) for kind, part in parts if len(part) >= PADDING]

    def in_general(self, kind: str) -> str:
        """Name the broader kind of one that has such a kind, as all do that are asked for as unknown."""
        general = self.grammar.general_of(kind)
        assert general is not None
        return general

    def name(self, kind: str, scores: torch.Tensor) -> str:
        """Name an event by the scores (rows, tags) of its rows: its kind, or its general one if nobody could tell."""
        general = self.grammar.general_of(kind)
        return kind if general is None or self.could_be_told(kind, scores) else general

    def could_be_told(self, kind: str, scores: torch.Tensor) -> bool:
        """Whether a kind is likely in scores (rows, tags), or among the likeliest."""
        mean = scores.float().mean(0)
        own = mean[self.ids[kind]]
        return bool(own.sigmoid() >= UNLIKELY or (mean[self.particular] > own).sum() < BEHIND)

    def is_audible(self, kind: str, scores: torch.Tensor) -> bool:
        """Whether a kind could be told in some part of scores (rows, tags): somebody who speaks makes pauses."""
        return any(self.could_be_told(kind, part) for part in scores.tensor_split(max(1, len(scores) // AUDIBLE)))


def relation_of(names: Sequence[str]) -> str:
    """Name the relation of sounds one after another."""
    return FOLLOWING.get(len(names), "sequence")

"""
The grammar of captions: reads `everyday_captions.yaml` and puts its wordings together to sentences.

`prepare_everyday.py` and `mix_everyday.py` beside it use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml


FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Kind:
    """A kind of sound: its AudioSet labels, the broader kinds it is part of, and pairs of (sentence, noun phrase)."""

    name: str
    labels: tuple[str, ...]
    part_of: tuple[str, ...]
    wording: tuple[tuple[str, str], ...]
    named: str  # the word for it in evaluation_mac.metrics.everyday_naming


class Grammar:
    """
    Makes captions of the kinds of everyday sounds.

    Args:
        folder: Folder that holds `everyday_captions.yaml` and `esc50_captions.yaml`.
    """

    def __init__(self, folder: Path = FOLDER):
        rules = yaml.safe_load((folder / "everyday_captions.yaml").read_text(encoding="utf-8"))
        borrowed = yaml.safe_load((folder / "esc50_captions.yaml").read_text(encoding="utf-8"))
        sources = {**borrowed["sources"], **borrowed["no_source"]}
        self.relations: dict[str, list[str]] = rules["relations"]
        self.left_out: dict[str, list[str]] = rules["left_out"]
        self.general = {first for first, *_ in self.left_out.values()}
        self.kinds: dict[str, Kind] = {}
        for name, rule in rules["kinds"].items():
            if "like" in rule:
                template = rules["templates"][rule["like"]]
                pairs = [[text.format(name=rule["name"]) for text in pair] for pair in template]
            elif "wording" in rule:
                pairs = rule["wording"]
            else:
                pairs = [[one["clause"], one["phrase"]] for one in sources[name]]
            wording = tuple((clause, phrase) for clause, phrase in pairs)
            labels, part_of = tuple(rule["labels"]), tuple(rule.get("part_of", ()))
            self.kinds[name] = Kind(name, labels, part_of, wording, rule.get("named", name))

    @cached_property
    def tags(self) -> list[str]:
        """List all that may be heard: the kinds, and what they are part of."""
        return sorted({tag for kind in self.kinds.values() for tag in (kind.name, *kind.part_of)})

    def find(self, labels: Sequence[str]) -> str | None:
        """Find the first kind that has one of these AudioSet labels; None if there is none."""
        names = (name for name, kind in self.kinds.items() if any(label in kind.labels for label in labels))
        return next(names, None)

    def kind_left_out(self, labels: Sequence[str]) -> str | None:
        """Find the first of the labels that must never be learnt; None if there is none."""
        return next((label for label in labels if label in self.left_out), None)

    def tags_of(self, name: str) -> set[str]:
        """Collect a kind and all that it is part of."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            tag = waiting.pop()
            if tag not in found:
                found.add(tag)
                waiting += self.kinds[tag].part_of if tag in self.kinds else ()
        return found

    def general_of(self, name: str) -> str | None:
        """Find the broader kind that can be told of a kind of which nothing particular is known; None if none can."""
        return next((tag for tag in self.kinds[name].part_of if tag in self.general), None)

    def can_relate(self, relation: str, count: int) -> bool:
        """Whether `tell` knows a relation of so many kinds."""
        expected = {"single": count == 1, "sequence": count > 2}
        return expected.get(relation, count == 2 and relation in self.relations)

    def tell(self, names: Sequence[str], relation: str, rng: np.random.Generator) -> str:
        """
        Make one caption of one kind, of two in one of the grammar's relations, or of more in a "sequence".

        Args:
            names: Names of the kinds in the order in which they are heard or, if at once, the stronger one first.
            relation: Name of the grammar's relation between two kinds; "sequence" for more.
            rng: Source of the random choice among wordings.
        """
        pairs = [self.kinds[name].wording[int(rng.integers(len(self.kinds[name].wording)))] for name in names]
        if len(pairs) == 1:
            return pairs[0][0]
        (x, _), (y, b), *rest = pairs
        forms = self.relations["followed_by" if relation == "sequence" else relation]
        caption = forms[int(rng.integers(len(forms)))].format(x=x, y=y, b=b)
        for index, (_, phrase) in enumerate(rest, start=1):
            form = self.relations["sequence_end" if index == len(rest) else "sequence"][0]
            caption += form.format(b=phrase)
        return caption

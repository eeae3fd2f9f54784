"""
Does a caption name the right sound, and no other? A rule of plain word lists.

A caption names a kind of sound if it holds one of its words or expressions as whole words. Longer expressions go
first and use up their words, so that "a plane engine" names an airplane and no engine. Kinds may be parts of others:
who says "a piano" says music, too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from itertools import product


# Collections by name, and the module whose `NAMING` holds their words: nothing general imports any of them.
NAMINGS = {"esc50": "evaluation_mac.metrics.esc50_naming", "everyday": "evaluation_mac.metrics.everyday_naming"}

RELATIONS = ("followed by", "while")
# Before a kind, or several of which any is true: a sound that is called so, and nothing more particular.
GENERAL, ANY = "some ", " or "
IN_ORDER = " then "  # between three kinds and more

_FOLLOWING = ("followed by", "and then", "then", "before", "and after that", "and afterwards", "until", "gives way to")
_FOLLOWED = ("after", "preceded by", "following")
_OVERLAPPING = (
    "while", "as", "over", "during", "amid", "with", "meanwhile", "simultaneously", "at the same time", "accompanied",
    "in the background", "together with", "along with", "whilst", "alongside",
)  # fmt: skip


def expand(listed: str, *combined: tuple[str, str]) -> tuple[str, ...]:
    """The comma-separated expressions, then every "left right" of each pair of comma-separated lists."""
    expressions = [part.strip() for part in listed.split(",")]
    for left, right in combined:
        expressions += [f"{a.strip()} {b.strip()}" for a, b in product(left.split(","), right.split(","))]
    return tuple(dict.fromkeys(expressions))


def split_words(text: str) -> tuple[str, ...]:
    """Lower-cased words; a possessive 's, and all punctuation, is dropped."""
    text = re.sub(r"['\u2019]s\b", "", text.lower())
    return tuple(re.findall(r"[^\W_]+", text.replace("'", "").replace("\u2019", "")))


class Naming:
    """
    The kinds of a collection and their words.

    Args:
        words: The expressions of each kind; no expression belongs to two.
        other: Expressions that hold a kind's word but mean something else: they use up their words and name nothing.
        part_of: What a kind is besides: "piano" -> ("music",). All that is named there is in `words`, too.
        called: What an error calls the kinds.
        noticed: Kinds of which it is counted, too, how often they are named where they are, and where they are not.
    """

    def __init__(
        self,
        words: Mapping[str, Sequence[str]],
        other: Sequence[str] = (),
        part_of: Mapping[str, Sequence[str]] | None = None,
        called: str = "kinds of sound",
        noticed: Sequence[str] = (),
    ):
        self.words, self.part_of, self.noticed = words, part_of or {}, noticed
        self.collection = f"the {len(words)} {called}"
        # First word -> the expressions that start with it, longest first, each with the kind it names.
        self.table: dict[str, list[tuple[tuple[str, ...], str | None]]] = {}
        for kind, expressions in [*words.items(), (None, other)]:
            for expression in map(split_words, expressions):
                self.table.setdefault(expression[0], []).append((expression, kind))
        for entries in self.table.values():
            entries.sort(key=lambda entry: -len(entry[0]))

    def find(self, tokens: Sequence[str]) -> set[str]:
        """The kinds that the words name, reading left to right and taking the longest expression at each place."""
        return set(self.find_in_order(tokens))

    def find_in_order(self, tokens: Sequence[str]) -> list[str]:
        """The same in the order of the words, a kind as often as it is named."""
        found: list[str] = []
        position = 0
        while position < len(tokens):
            for words, kind in self.table.get(tokens[position], ()):
                if tuple(tokens[position : position + len(words)]) == words:
                    if kind is not None:
                        found.append(kind)
                    position += len(words)
                    break
            else:
                position += 1
        return found

    def named(self, caption: str) -> set[str]:
        """All kinds that the caption names."""
        return self.find(split_words(caption))

    def all_of(self, kind: str) -> set[str]:
        """A kind and all that it is part of."""
        return {kind}.union(*(self.all_of(other) for other in self.part_of.get(kind, ())))

    def tells(self, found: set[str], kind: str) -> bool:
        """Whether what was found is the kind or something of it, and besides nothing but what that is part of."""
        allowed = self.all_of(kind)
        return any(kind in self.all_of(one) for one in found) and all(
            kind in self.all_of(one) or one in allowed for one in found
        )

    def mentions(self, caption: str, kind: str) -> bool:
        """Whether the caption names the kind, or something that is part of it, among whatever else."""
        self.check(kind)
        return any(kind in self.all_of(one) for one in self.named(caption))

    def check(self, *kinds: str) -> None:
        """Refuse a kind that there is not."""
        for kind in kinds:
            if kind not in self.words:
                near = get_close_matches(str(kind), self.words, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown source {kind!r}: expected one of {self.collection}, such as {near!r}")

    def kinds_of(self, source: str) -> list[str]:
        """The kinds of a source or of a scene of several."""
        if scene := read_scene(source):
            return list(scene[:2])
        if source.startswith(GENERAL):
            return source.removeprefix(GENERAL).split(ANY)
        return source.split(IN_ORDER)

    def is_scored(self, source: str | None) -> bool:
        """True if captions can be checked for this source: a kind, or a scene of several."""
        return source is not None and all(kind in self.words for kind in self.kinds_of(source))

    def names(self, caption: str, source: str) -> bool:
        """
        True if the caption names this source and no other.

        Args:
            source: A kind; a scene of two, "dog followed by rain" or "dog while rain" (see `names_in_order`); a scene
                of more, "dog then rain then siren then cow", of which all but one must be named, in order; or "some
                animal", or "some animal or insects", of which nothing more particular may be said.
        """
        kinds = self.kinds_of(source)
        self.check(*kinds)
        if scene := read_scene(source):
            return self.names_in_order(caption, *scene)
        found = self.named(caption)
        if source.startswith(GENERAL):
            return not found.isdisjoint(kinds) and found <= set().union(*map(self.all_of, kinds))
        if len(kinds) > 1:
            return self.names_most(caption, kinds)
        return self.tells(found, kinds[0])

    def names_both(self, caption: str, first: str, second: str) -> bool:
        """True if the caption of a two-recording window names both and no other, in any order."""
        self.check(first, second)
        found = self.named(caption)
        told = [{one for one in found if kind in self.all_of(one)} for kind in (first, second)]
        allowed = self.all_of(first) | self.all_of(second)
        return all(told) and found <= told[0] | told[1] | allowed

    def names_in_order(self, caption: str, first: str, second: str, relation: str) -> bool:
        """True if the caption names both sources, no other, and says how they relate.

        `relation` "followed by" asks for words of sequence with `first` told as the earlier one; "while" asks for
        words of overlap and no words of sequence, in any order of the two.
        """
        if relation not in RELATIONS:
            raise ValueError(f"unknown relation {relation!r}: expected 'followed by' or 'while'")
        if not self.names_both(caption, first, second):
            return False
        tokens = split_words(caption)
        if relation == "while":
            return not any(_splits(tokens, _FOLLOWING + _FOLLOWED)) and any(_splits(tokens, _OVERLAPPING))
        parts = ((self.find(a), self.find(b)) for a, b in _in_time(tokens))
        return any(self.tells(before, first) and self.tells(after, second) for before, after in parts)

    def names_most(self, caption: str, kinds: Sequence[str]) -> bool:
        """True if the caption names all kinds but one, in the order of the list."""
        found = [self.all_of(one) for one in self.find_in_order(split_words(caption))]
        longest = [0] * (len(kinds) + 1)  # of the kinds up to each one, the most that are named in order so far
        for named in found:
            before = list(longest)
            for place, kind in enumerate(kinds, start=1):
                longest[place] = max(longest[place], longest[place - 1], before[place - 1] + (kind in named))
        return longest[-1] >= len(kinds) - 1

    def accuracy(self, captions: Sequence[str], sources: Sequence[str]) -> float:
        """Share of the captions, in 0..1, that name their source and no other."""
        if len(captions) != len(sources) or not captions:
            raise ValueError(
                f"expected as many captions as sources and at least one, got {len(captions)} captions and"
                f" {len(sources)} sources"
            )
        return sum(map(self.names, captions, sources)) / len(captions)


def load_naming(name: str) -> Naming:
    """
    The words of a collection.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in NAMINGS:
        raise ValueError(f"naming: no word lists {name!r}; there are {', '.join(NAMINGS)}.")
    return import_module(NAMINGS[name]).NAMING


def some_of(kinds: Sequence[str]) -> str:
    """The source that is any of these kinds in general: "some animal or insects"."""
    return GENERAL + ANY.join(kinds)


def read_scene(source: str) -> tuple[str, str, str] | None:
    """First source, second source and relation of "X followed by Y" or "X while Y"; None for one source."""
    for relation in RELATIONS:
        first, found, second = source.partition(f" {relation} ")
        if found:
            return first, second, relation
    return None


def kind_of_scene(source: str) -> str | None:
    """What sort of source it is, if not simply one: 'followed_by', 'while', 'in_order' or 'general'."""
    if scene := read_scene(source):
        return scene[2].replace(" ", "_")
    if IN_ORDER in source:
        return "in_order"
    return "general" if source.startswith(GENERAL) else None


def _splits(tokens: tuple[str, ...], markers: Iterable[str]) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every way to cut the words in two at one of the markers, without the marker."""
    for marker in markers:
        words = split_words(marker)
        for start in range(len(tokens) - len(words) + 1):
            if tokens[start : start + len(words)] == words:
                yield tokens[:start], tokens[start + len(words) :]


def _in_time(tokens: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The caption's two parts as (earlier, later), at every word of sequence; anywhere after an opening "after"."""
    if tokens[0] in _FOLLOWED:
        yield from ((tokens[1:cut], tokens[cut:]) for cut in range(1, len(tokens)))
    yield from _splits(tokens, _FOLLOWING)
    for later, earlier in _splits(tokens, _FOLLOWED):
        yield earlier, later

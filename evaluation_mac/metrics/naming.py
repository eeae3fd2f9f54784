"""
Does a caption name the right sound source? A rule of plain word lists, one set of them for each collection of sounds.

A caption names a source if it holds one of the words or expressions of that source as whole words. It counts as right
if it names its own source and none of the others. Words that several sources share ("water", "door", "clock", "glass",
"buzzing") name none of them alone, only inside an expression ("door creaks", "alarm clock"). Longer expressions go
first and use up their words, so "a plane engine" names an airplane and no engine.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from itertools import product


# Collections by name, and the module whose `NAMING` holds their words: nothing general imports any of them.
NAMINGS = {"esc50": "evaluation_mac.metrics.esc50_naming"}

RELATIONS = ("followed by", "while")

_FOLLOWING = ("followed by", "and then", "then", "before", "and after that", "and afterwards", "until", "gives way to")
_FOLLOWED = ("after", "preceded by", "following")
_OVERLAPPING = (
    "while", "as", "over", "during", "amid", "with", "meanwhile", "simultaneously", "at the same time", "accompanied",
    "in the background", "together with", "along with", "whilst", "alongside",
)  # fmt: skip


class Naming:
    """
    The words of a collection's sources.

    Args:
        collection: What errors call the sources: "the 50 ESC-50 categories".
        source_words: Each source's words and expressions.
        other_expressions: Expressions that name no source, though words in them would.
    """

    def __init__(
        self, collection: str, source_words: Mapping[str, Sequence[str]], other_expressions: Sequence[str] = ()
    ):
        self.collection = collection
        self.source_words = source_words
        # First word -> the expressions that start with it, longest first, each with the source it names.
        self.expressions: dict[str, list[tuple[tuple[str, ...], str | None]]] = {}
        for source, expressions in [*source_words.items(), (None, other_expressions)]:
            for words in map(split_words, expressions):
                self.expressions.setdefault(words[0], []).append((words, source))
        for entries in self.expressions.values():
            entries.sort(key=lambda entry: -len(entry[0]))

    def find(self, words: Sequence[str]) -> set[str]:
        """The sources that words name, reading left to right and taking the longest expression at each place."""
        found: set[str] = set()
        position = 0
        while position < len(words):
            for expression, source in self.expressions.get(words[position], ()):
                if tuple(words[position : position + len(expression)]) == expression:
                    if source is not None:
                        found.add(source)
                    position += len(expression)
                    break
            else:
                position += 1
        return found

    def check(self, *sources: str) -> None:
        """Refuse a source that is not one of the collection's."""
        for source in sources:
            if source not in self.source_words:
                near = get_close_matches(str(source), self.source_words, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown source {source!r}: expected one of {self.collection}, such as {near!r}")

    def named_sources(self, caption: str) -> set[str]:
        """All sources that the caption names."""
        return self.find(split_words(caption))

    def names_source(self, caption: str, source: str) -> bool:
        """
        Whether the caption names this source and no other.

        Args:
            caption: A sentence.
            source: One of the collection's, or a scene of two: "dog followed by rain", "dog while rain" (see
                `names_in_order`).
        """
        scene = read_scene(source)
        if scene is not None:
            return self.names_in_order(caption, *scene)
        self.check(source)
        return self.named_sources(caption) == {source}

    def is_scored(self, source: str | None) -> bool:
        """Whether captions can be checked for this source: one of the collection's, or a scene of two of them."""
        if source is None:
            return False
        scene = read_scene(source)
        return all(one in self.source_words for one in (scene[:2] if scene else (source,)))

    def accuracy(self, captions: Sequence[str], sources: Sequence[str]) -> float:
        """Share of the captions, in 0..1, that name their source and no other."""
        if len(captions) != len(sources) or not captions:
            raise ValueError(
                f"expected as many captions as sources and at least one, got {len(captions)} captions and"
                f" {len(sources)} sources"
            )
        return sum(map(self.names_source, captions, sources)) / len(captions)

    def names_both(self, caption: str, first: str, second: str) -> bool:
        """Whether the caption of a two-recording window names both sources and no other, in any order."""
        self.check(first, second)
        return self.named_sources(caption) == {first, second}

    def names_in_order(self, caption: str, first: str, second: str, relation: str) -> bool:
        """
        Whether the caption names both sources, no other, and says how they relate.

        "followed by" asks for words of sequence with `first` told as the earlier one; "while" asks for words of
        overlap and no words of sequence, in any order of the two.
        """
        if relation not in RELATIONS:
            raise ValueError(f"unknown relation {relation!r}: expected 'followed by' or 'while'")
        if not self.names_both(caption, first, second):
            return False
        words = split_words(caption)
        if relation == "while":
            return not any(_splits(words, _FOLLOWING + _FOLLOWED)) and any(_splits(words, _OVERLAPPING))
        return any(self.find(a) == {first} and self.find(b) == {second} for a, b in _in_time(words))


def load_naming(name: str) -> Naming:
    """
    The words of a collection.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in NAMINGS:
        raise ValueError(f"naming: no word lists {name!r}; there are {', '.join(NAMINGS)}.")
    return import_module(NAMINGS[name]).NAMING


def read_scene(source: str) -> tuple[str, str, str] | None:
    """First source, second source and relation of "X followed by Y" or "X while Y"; None for one source."""
    for relation in RELATIONS:
        first, found, second = source.partition(f" {relation} ")
        if found:
            return first, second, relation
    return None


def word_list(listed: str, *combined: tuple[str, str]) -> tuple[str, ...]:
    """The comma-separated expressions, then every "left right" of each pair of comma-separated lists."""
    expressions = [part.strip() for part in listed.split(",")]
    for left, right in combined:
        expressions += [f"{a.strip()} {b.strip()}" for a, b in product(left.split(","), right.split(","))]
    return tuple(dict.fromkeys(expressions))


def split_words(text: str) -> tuple[str, ...]:
    """Lower-cased words; a possessive 's, and all punctuation, is dropped."""
    text = re.sub(r"['\u2019]s\b", "", text.lower())
    return tuple(re.findall(r"[^\W_]+", text.replace("'", "").replace("\u2019", "")))


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

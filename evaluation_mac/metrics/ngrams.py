"""N-grams of candidates and references, counted and matched for all captions at once: what BLEU and CIDEr-D stand on.

Candidate i is the caption of clip i. References are numbered through, those of clip 0 first.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np


LONGEST = 4  # words: both metrics use n-grams of 1 to 4 words


@dataclass(frozen=True)
class Occurrences:
    """Which caption holds which n-gram how often: one entry for each such pair."""

    caption: np.ndarray  # (entries,)
    ngram: np.ndarray  # (entries,) number of the n-gram
    count: np.ndarray  # (entries,)


@dataclass(frozen=True)
class NgramOverlap:
    """The n-grams of one n, and where a candidate shares one with a reference of its clip."""

    kinds: int  # different n-grams, numbered 0 .. kinds - 1
    candidate: Occurrences
    reference: Occurrences
    shared_candidate: np.ndarray  # (pairs,) entry of `candidate`
    shared_reference: np.ndarray  # (pairs,) entry of `reference` with the same n-gram and clip


@dataclass(frozen=True)
class CaptionNgrams:
    """All that BLEU and CIDEr-D need to know of the captions."""

    lengths: np.ndarray  # (clips,) words of each candidate
    reference_lengths: np.ndarray  # (references,) words
    reference_clip: np.ndarray  # (references,) the clip of each reference, ascending
    overlaps: list[NgramOverlap]  # for n = 1 .. 4


def match_ngrams(candidates: list[str], references: list[list[str]]) -> CaptionNgrams:
    """Count the n-grams of tokenised captions and match each candidate's with those of its own references."""
    words = [caption.split() for caption in chain(candidates, *references)]
    lengths = np.array([len(row) for row in words])
    reference_clip = np.repeat(np.arange(len(references)), [len(row) for row in references])
    numbers: dict[str, int] = {}
    word = np.array([numbers.setdefault(word, len(numbers)) for row in words for word in row], dtype=np.int64)
    owner = np.append(np.repeat(np.arange(len(words)), lengths), [-1] * LONGEST)  # the end belongs to no caption
    start, ngram, overlaps = np.arange(len(word)), word, []
    for n in range(1, LONGEST + 1):
        if n > 1:  # lengthen by a word each n-gram that stays inside its caption
            inside = owner[start + n - 1] == owner[start]
            start, ngram = start[inside], ngram[inside] * len(numbers) + word[start[inside] + n - 1]
        kinds, ngram = np.unique(ngram, return_inverse=True)
        overlaps.append(_overlap(owner[start], ngram, max(1, len(kinds)), reference_clip, len(candidates)))
    return CaptionNgrams(lengths[: len(candidates)], lengths[len(candidates) :], reference_clip, overlaps)


def _overlap(owner: np.ndarray, ngram: np.ndarray, kinds: int, reference_clip: np.ndarray, clips: int) -> NgramOverlap:
    """Count the n-grams of one n, given one by one with the caption that each stands in, candidates first."""
    keys, count = np.unique(owner * kinds + ngram, return_counts=True)
    caption, ngram = np.divmod(keys, kinds)
    split = np.searchsorted(caption, clips)
    candidate = Occurrences(caption[:split], ngram[:split], count[:split])
    reference = Occurrences(caption[split:] - clips, ngram[split:], count[split:])
    wanted = reference_clip[reference.caption] * kinds + reference.ngram
    place = np.searchsorted(keys[:split], wanted)
    shared = np.flatnonzero(np.append(keys[:split], -1)[place] == wanted)
    return NgramOverlap(kinds, candidate, reference, place[shared], shared)

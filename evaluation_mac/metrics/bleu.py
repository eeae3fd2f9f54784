"""BLEU-1 to BLEU-4 (Papineni et al., ACL 2002), as COCO's caption scorer computes them.

Two choices of that scorer matter: the reference length is the one closest to the candidate's (the shorter on a tie),
and tiny constants stand in for zero counts, so a caption without a common 4-gram scores about 1e-9 rather than 0.
"""

import numpy as np

from evaluation_mac.metrics.caption_scores import CaptionScores
from evaluation_mac.metrics.ngrams import LONGEST, CaptionNgrams, NgramOverlap


_TINY = 1e-15  # added to numerators
_SMALL = 1e-9  # added to denominators


def bleu(ngrams: CaptionNgrams) -> CaptionScores:
    """BLEU-1..4 in 0..1, named `bleu_1` .. `bleu_4`, of candidates each against its own references."""
    orders = np.arange(LONGEST)
    statistics = np.column_stack(
        [
            ngrams.lengths,
            _closest_reference_lengths(ngrams),
            *(_clipped_matches(overlap, len(ngrams.lengths)) for overlap in ngrams.overlaps),
            np.maximum(0, ngrams.lengths[:, None] - orders),  # n-grams there are in the candidate
        ]
    )
    return CaptionScores(tuple(f"bleu_{n + 1}" for n in orders), statistics.astype(np.float64), _formula)


def _closest_reference_lengths(ngrams: CaptionNgrams) -> np.ndarray:
    """(clips,) words of the reference that is closest in length to the candidate."""
    clip, length = ngrams.reference_clip, ngrams.reference_lengths
    order = np.lexsort((length, np.abs(length - ngrams.lengths[clip]), clip))
    first_of_clip = np.searchsorted(clip, np.arange(len(ngrams.lengths)))
    return length[order][first_of_clip]


def _clipped_matches(overlap: NgramOverlap, clips: int) -> np.ndarray:
    """(clips,) n-grams of a candidate, each counted at most as often as one of the references has it."""
    allowed = np.zeros_like(overlap.candidate.count)
    np.maximum.at(allowed, overlap.shared_candidate, overlap.reference.count[overlap.shared_reference])
    return np.bincount(overlap.candidate.caption, np.minimum(overlap.candidate.count, allowed), minlength=clips)


def _formula(sums: np.ndarray) -> np.ndarray:
    """(..., 10) summed statistics -> (..., 4): geometric mean of the precisions up to n, times the brevity penalty."""
    length, reference_length = sums[..., :1], sums[..., 1:2]
    precisions = (sums[..., 2 : 2 + LONGEST] + _TINY) / (sums[..., 2 + LONGEST :] + _SMALL)
    means = np.cumprod(precisions, axis=-1) ** (1.0 / np.arange(1, LONGEST + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    return means * np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))

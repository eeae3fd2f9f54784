"""CIDEr-D (Vedantam et al., CVPR 2015), which COCO's caption scorer and captioning papers print as CIDEr.

Cosine similarity of tf-idf vectors of n-grams, averaged over n = 1..4 and over the references, times 10. The D stands
for what keeps a caption from gaming it: weights clipped to the reference's, and a Gaussian penalty on the difference
in length. The document frequency of an n-gram is the number of clips, of those scored, whose references hold it; so
scores of different sets of clips cannot be compared, and a clip by itself scores 0.
"""

import numpy as np

from evaluation_mac.metrics.caption_scores import CaptionScores, averaged
from evaluation_mac.metrics.ngrams import LONGEST, CaptionNgrams, NgramOverlap, Occurrences


_SIGMA = 6.0  # words


def cider_d(ngrams: CaptionNgrams) -> CaptionScores:
    """CIDEr-D in 0..10, named `cider_d`: 0.48 is a good captioner's on Clotho, and papers print it times 100."""
    clip, clips = ngrams.reference_clip, len(ngrams.lengths)
    # The original takes the number of bigrams for the length; that differs where a caption is empty.
    lengths, reference_lengths = np.maximum(0, ngrams.lengths - 1), np.maximum(0, ngrams.reference_lengths - 1)
    penalty = np.exp(-((lengths[clip] - reference_lengths) ** 2) / (2 * _SIGMA**2))
    similarity = sum(_cosine(overlap, clip, clips) for overlap in ngrams.overlaps) / LONGEST
    per_clip = np.bincount(clip, penalty * similarity, minlength=clips) / np.bincount(clip, minlength=clips)
    return averaged("cider_d", 10.0 * per_clip)


def _cosine(overlap: NgramOverlap, clip: np.ndarray, clips: int) -> np.ndarray:
    """(references,) clipped cosine similarity of each reference and its clip's candidate, for one n."""
    idf = _inverse_document_frequency(overlap, clip, clips)
    weight, norm = _weigh(overlap.candidate, idf, clips)
    reference_weight, reference_norm = _weigh(overlap.reference, idf, len(clip))
    shared = reference_weight[overlap.shared_reference]
    products = np.minimum(weight[overlap.shared_candidate], shared) * shared
    product = np.bincount(overlap.reference.caption[overlap.shared_reference], products, minlength=len(clip))
    norms = norm[clip] * reference_norm
    return np.divide(product, norms, out=np.zeros_like(norms), where=norms != 0)


def _inverse_document_frequency(overlap: NgramOverlap, clip: np.ndarray, clips: int) -> np.ndarray:
    """(kinds,) log of all clips over the clips whose references hold the n-gram (over 1 where none does)."""
    in_clip = np.unique(clip[overlap.reference.caption] * overlap.kinds + overlap.reference.ngram)
    frequency = np.bincount(in_clip % overlap.kinds, minlength=overlap.kinds)
    return np.log(clips) - np.log(np.maximum(1, frequency))


def _weigh(occurrences: Occurrences, idf: np.ndarray, captions: int) -> tuple[np.ndarray, np.ndarray]:
    """(entries,) tf-idf weights, and (captions,) their Euclidean norms."""
    weight = occurrences.count * idf[occurrences.ngram]
    return weight, np.sqrt(np.bincount(occurrences.caption, weight**2, minlength=captions))

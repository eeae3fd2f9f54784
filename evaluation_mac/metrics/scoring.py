"""Score captions against references: the one entry to all captioning metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evaluation_mac.metrics.bleu import bleu
from evaluation_mac.metrics.bootstrap import bootstrap_intervals
from evaluation_mac.metrics.caption_input import check_captions
from evaluation_mac.metrics.caption_scores import CaptionScores, MetricUnavailable
from evaluation_mac.metrics.caption_statistics import caption_statistics
from evaluation_mac.metrics.cider import cider_d
from evaluation_mac.metrics.meteor import meteor
from evaluation_mac.metrics.ngrams import CaptionNgrams, match_ngrams
from evaluation_mac.metrics.ptb_tokenizer import ptb_tokenize
from evaluation_mac.metrics.rouge import rouge_l
from evaluation_mac.metrics.spice import spice, spider


DEFAULT_METRICS = ("bleu", "rouge_l", "cider_d")


@dataclass(frozen=True)
class _Captions:
    """The captions as written, and what several metrics need of them, made when first asked for."""

    candidates: list[str]
    references: list[list[str]]
    sentence_encoder: str | None

    @cached_property
    def tokenized(self) -> tuple[list[str], list[list[str]]]:
        references = [[ptb_tokenize(caption) for caption in row] for row in self.references]
        return [ptb_tokenize(caption) for caption in self.candidates], references

    @cached_property
    def ngrams(self) -> CaptionNgrams:
        return match_ngrams(*self.tokenized)

    @cached_property
    def spice(self) -> CaptionScores:
        return spice(*self.tokenized)


def _sentence_similarity(captions: _Captions) -> CaptionScores:
    if captions.sentence_encoder is None:
        raise MetricUnavailable("sentence_similarity needs sentence_encoder=..., the folder or name of an encoder")
    from evaluation_mac.metrics.sentence_similarity import (
        sentence_similarity,  # imports torch, which no other metric needs
    )

    return sentence_similarity(captions.candidates, captions.references, captions.sentence_encoder)


_METRICS: dict[str, Callable[[_Captions], CaptionScores]] = {
    "bleu": lambda captions: bleu(captions.ngrams),
    "rouge_l": lambda captions: rouge_l(*captions.tokenized),
    "cider_d": lambda captions: cider_d(captions.ngrams),
    "meteor": lambda captions: meteor(*captions.tokenized),
    "spice": lambda captions: captions.spice,
    "spider": lambda captions: spider(cider_d(captions.ngrams), captions.spice),
    "sentence_similarity": _sentence_similarity,
}
METRICS = (*_METRICS, "statistics")


def score_captions(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    sentence_encoder: str | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Scores of candidate captions, with the numbers that COCO's caption scorer gives.

    Args:
        candidates: Caption of each clip as written, since tokens are made here; it may be empty.
        references: Reference captions of each clip, at least one; their number may differ from clip to clip.
        metrics: Names out of `METRICS`; "meteor", "spice" and "spider" need Java and the extra `metrics`, "spice" and
            "spider" also Stanford CoreNLP.
        sentence_encoder: Folder or Hub name of the encoder for "sentence_similarity".
        resamples: Number of bootstrap resamples for 95 % intervals; 0 for no intervals, 1000 is usual.
        seed: Seed of the resamples; the same seed gives the same intervals.

    Returns:
        `corpus` {name: score}, `per_caption` [{name: score}, ...] in the order of the candidates, `skipped`
        {metric: what it needs} for metrics that cannot run here and, with resamples, `intervals` {name: (low, high)}.
        Scores are not times 100. Names: bleu_1 .. bleu_4, rouge_l, cider_d, meteor, spice, spider,
        sentence_similarity; of "statistics": length, vocabulary, reference_length, reference_vocabulary (no interval).

    Raises:
        ValueError: A metric is unknown, or captions cannot be scored; the message names the rows.
    """
    unknown = sorted(set(metrics) - set(METRICS)) if not isinstance(metrics, str) else [metrics]
    if unknown:
        raise ValueError(f"metrics: expected a list of names out of {', '.join(METRICS)}; got {', '.join(unknown)}")
    captions = _Captions(*check_captions(candidates, references), sentence_encoder)
    result: dict[str, Any] = {"corpus": {}, "per_caption": [{} for _ in captions.candidates], "skipped": {}}
    scores = []
    for metric in metrics:
        if metric == "statistics":
            _add(result, *caption_statistics(*captions.tokenized))
            continue
        try:
            scores.append(_METRICS[metric](captions))
        except MetricUnavailable as reason:
            result["skipped"][metric] = str(reason)
        else:
            _add(result, *_named(scores[-1]))
    if resamples:
        result["intervals"] = bootstrap_intervals(scores, resamples, seed)
    return result


def _named(scores: CaptionScores) -> tuple[dict[str, float], list[dict[str, float]]]:
    corpus, per_caption = scores.corpus().tolist(), scores.per_caption().tolist()
    return dict(zip(scores.names, corpus, strict=True)), [
        dict(zip(scores.names, row, strict=True)) for row in per_caption
    ]


def _add(result: dict[str, Any], corpus: dict[str, float], per_caption: list[dict[str, float]]) -> None:
    result["corpus"] |= corpus
    for row, scores in zip(result["per_caption"], per_caption, strict=True):
        row |= scores

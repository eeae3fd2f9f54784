"""The metrics as `evaluate.Metric` classes, which need no network.

    from evaluation_mac.metrics.hub_metrics import CiderD

    CiderD().compute(predictions=["a dog barks"], references=[["a dog is barking", "dog barks loudly"]])

By path they load as evaluate's own: `evaluate.load("evaluation_mac/scripts/cider_d.py")`, one script a metric.

The answer holds each corpus score under its name, and the scores of the single captions under NAME_per_caption.
"""

from typing import Any, ClassVar

import datasets
import evaluate

from evaluation_mac.metrics.scoring import score_captions


class _CaptionMetric(evaluate.Metric):
    """A metric of `score_captions`, named by the subclass."""

    metric: ClassVar[str]

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            inputs_description="predictions: a caption for each clip. references: a list of captions for each clip.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]], **options: Any) -> dict[str, Any]:
        result = score_captions(predictions, references, [self.metric], **options)
        if result["skipped"]:
            raise RuntimeError(result["skipped"][self.metric])
        lists = {f"{name}_per_caption": [row[name] for row in result["per_caption"]] for name in result["corpus"]}
        return result["corpus"] | lists


class Bleu(_CaptionMetric):
    """BLEU-1 to BLEU-4 as COCO's caption scorer computes them, 0..1."""

    metric = "bleu"


class RougeL(_CaptionMetric):
    """ROUGE-L as COCO's caption scorer computes it, 0..1."""

    metric = "rouge_l"


class CiderD(_CaptionMetric):
    """CIDEr-D as COCO's caption scorer computes it, 0..10."""

    metric = "cider_d"


class Meteor(_CaptionMetric):
    """METEOR 1.5, 0..1; needs Java and pycocoevalcap."""

    metric = "meteor"


class Spice(_CaptionMetric):
    """SPICE, 0..1; needs Java, pycocoevalcap and Stanford CoreNLP 3.6.0."""

    metric = "spice"


class Spider(_CaptionMetric):
    """SPIDEr, the mean of CIDEr-D and SPICE; needs what SPICE needs."""

    metric = "spider"


class SentenceSimilarity(_CaptionMetric):
    """Mean cosine similarity to the references, -1..1, by the encoder named in compute(sentence_encoder=...)."""

    metric = "sentence_similarity"


class CaptionStatistics(_CaptionMetric):
    """Lengths and vocabularies, in tokens."""

    metric = "statistics"

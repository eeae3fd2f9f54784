"""The `evaluate.Metric` classes: no network, the same numbers."""

from pathlib import Path

import evaluate
import pytest

import evaluation_mac
from evaluation_mac import METRICS, score_captions
from evaluation_mac.metrics import hub_metrics


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """evaluate writes what it is given to its cache."""
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path)


@pytest.mark.parametrize(
    "metric", [hub_metrics.Bleu, hub_metrics.RougeL, hub_metrics.CiderD, hub_metrics.CaptionStatistics]
)
def test_scores(metric, golden_captions):
    clips = golden_captions["clips"]
    candidates, references = [clip["candidate"] for clip in clips], [clip["references"] for clip in clips]
    answer = metric().compute(predictions=candidates, references=references)
    expected = score_captions(candidates, references, [metric.metric])
    for name, score in expected["corpus"].items():
        assert answer.pop(name) == score
        assert answer.pop(f"{name}_per_caption") == [row[name] for row in expected["per_caption"]]
    assert not answer


def test_every_metric_has_a_class():
    classes = [getattr(hub_metrics, name) for name in dir(hub_metrics) if not name.startswith("_")]
    assert sorted(METRICS) == sorted(value.metric for value in classes if hasattr(value, "metric"))


def test_a_metric_that_cannot_run_says_why():
    with pytest.raises(RuntimeError, match="sentence_encoder"):
        hub_metrics.SentenceSimilarity().compute(predictions=["a dog"], references=[["a dog"]])


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_loads_by_its_path(metric, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path))
    script = Path(evaluation_mac.__file__).parent / "scripts" / f"{metric}.py"
    loaded = evaluate.load(str(script))
    assert loaded.metric == metric
    if metric == "rouge_l":
        assert loaded.compute(predictions=["a dog"], references=[["a dog"]])["rouge_l"] == 1.0

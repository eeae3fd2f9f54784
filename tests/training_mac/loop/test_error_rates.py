"""Word and character error rates as metrics of validation."""

import pytest

from processing_mac.dataset_mac import Clip
from training_mac.loop.validation import score
from training_mac.run.check import EVAL_METRICS


pytest.importorskip("jiwer")


def test_validation_counts_errors_beside_other_metrics():
    clips = [Clip("a.wav", ("red dog",)), Clip("b.wav", ("blue bird",))]
    scores = score(clips, ["red dog", "blue"], ["wer", "rouge_l"])
    assert scores["wer"] == pytest.approx(1 / 4)
    assert "rouge_l" in scores
    assert "cer" not in scores


def test_a_recipe_may_ask_for_them():
    assert {"wer", "cer"} <= set(EVAL_METRICS)

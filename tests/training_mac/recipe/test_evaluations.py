"""Which evaluation is the best, and what is shown of it."""

import math

import pytest

from training_mac.recipe.evaluations import best_evaluation, shown_scores


LOG = [
    {"step": 1, "loss": 0.1},
    {"step": 2, "eval_loss": math.nan, "eval_wer": 0.5, "eval_cider_d": 0.1},
    {"step": 3, "eval_loss": 2.0, "eval_wer": 0.9, "eval_cider_d": 0.3},
    {"step": 4, "eval_loss": 1.0, "eval_wer": 0.7, "eval_cider_d": 0.3},
]


@pytest.mark.parametrize(
    ("metric", "greater", "step"),
    [(None, None, 4), ("loss", None, 4), ("eval_cider_d", None, 3), ("wer", False, 2), ("wer", None, 3)],
)
def test_the_best_is_by_the_metric_of_the_recipe(metric: str | None, greater: bool | None, step: int) -> None:
    best = best_evaluation(LOG, metric, greater)
    assert best is not None and best["step"] == step


def test_without_the_metric_there_is_no_best() -> None:
    assert best_evaluation(LOG, "spice") is None and best_evaluation(LOG[:2]) is None


def test_the_loss_comes_first_and_times_not_at_all() -> None:
    entry = {"eval_bleu_1": 1.0, "eval_bleu_4": 0.5, "eval_loss": 2.0, "eval_runtime": 9.0, "epoch": 1.0}
    assert list(shown_scores(entry).items()) == [("loss", 2.0), ("bleu_4", 0.5)]

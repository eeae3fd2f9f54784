"""The picture and the words about a finished training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import pytest

from training_mac.release.curve import CURVE, draw_curve, stage_panels
from training_mac.release.summary import next_command, summarize_training


def make_stage(**training: Any) -> Any:
    fields = {"metric_for_best_model": None, "greater_is_better": None, "load_best_model_at_end": False, **training}
    return SimpleNamespace(training=SimpleNamespace(**fields), recipe=SimpleNamespace(objective="captions"))


def make_state(**fields: Any) -> dict[str, Any]:
    log = [
        {"step": 10, "epoch": 1.0, "loss": 3.0, "elapsed": 60.0},
        {"step": 10, "epoch": 1.0, "eval_cider_d": 0.5, "eval_bleu_4": 0.25, "eval_loss": 2.0, "eval_runtime": 1.0},
        {"step": 20, "epoch": 2.0, "loss": float("nan"), "elapsed": 90.0},
        {"step": 20, "epoch": 2.0, "eval_cider_d": 0.9, "eval_bleu_4": 0.20, "eval_loss": 2.5, "eval_runtime": 1.0},
        {"step": 30, "epoch": 3.0, "loss": 1.0, "elapsed": 120.0},
    ]
    return {"log_history": log, "global_step": 30, "max_steps": 30, "epoch": 3.0, **fields}


def test_a_measure_of_another_scale_has_its_own_panel(tmp_path: Path) -> None:
    (_, losses, best), (_, scores, _), (title, cider, _) = stage_panels(1, make_state(), make_stage())
    assert losses == {"training": [(10, 3.0), (30, 1.0)], "validation": [(10, 2.0), (20, 2.5)]} and best == 10
    assert scores == {"bleu_4": [(10, 0.25), (20, 0.20)]}
    assert title == "stage 1: scores, on a scale of 0 to 10" and cider == {"cider_d": [(10, 0.5), (20, 0.9)]}
    assert draw_curve(tmp_path, [make_state()] * 3, [make_stage()] * 3)
    height, width, _ = matplotlib.image.imread(tmp_path / CURVE).shape
    assert height > 900 and width > 1400 and [file.name for file in tmp_path.iterdir()] == [CURVE]


def test_a_training_that_logged_nothing_has_no_curve(tmp_path: Path) -> None:
    assert not draw_curve(tmp_path, [make_state(log_history=[])], [make_stage()])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("training", "state", "expected"),
    [
        ({}, {}, ["Stage 1, captions: 30 steps, 3 epochs, 2.0 minutes, loss from 3 to 1.",
                  "    best loss after epoch 1 (step 10; the end was kept, not this): "
                  "loss 2.000, cider_d 0.500, bleu_4 0.250"]),
        ({"metric_for_best_model": "cider_d", "greater_is_better": True, "load_best_model_at_end": True},
         {"max_steps": 90},
         ["Stage 1, captions: 30 steps of 90, ended early, 3 epochs, 2.0 minutes, loss from 3 to 1.",
          "    best cider_d after epoch 2 (step 20; it was kept): loss 2.500, cider_d 0.900, bleu_4 0.200"]),
        ({}, {"global_step": 10},
         ["Stage 1, captions: 10 steps of 30, ended early, 3 epochs, 2.0 minutes, loss from 3 to 1.",
          "    best loss after epoch 1 (step 10; the end): loss 2.000, cider_d 0.500, bleu_4 0.250"]),
        ({}, {"log_history": []}, ["Stage 1, captions: 30 steps, 3 epochs, 0.0 minutes."]),
    ],
)  # fmt: skip
def test_a_summary_tells_of_the_best(training: dict, state: dict, expected: list[str]) -> None:
    assert summarize_training([make_state(**state)], [make_stage(**training)]) == expected


def test_the_next_command_can_be_typed() -> None:
    assert next_command(Path("runs/my model"), "check.csv", "esc50") == (
        "mac-eval captioning --model 'runs/my model' --data check.csv --output 'runs/my model/results' --naming esc50"
    )
    assert " --data MANIFEST " in next_command(Path("a"), {"path": "check.csv"}, None)

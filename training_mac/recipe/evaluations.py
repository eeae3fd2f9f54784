"""What the log of a stage says of its evaluations: their scores, and which is the best by the recipe."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


# Not shown to people: how long it took, and of BLEU those that BLEU-4 stands for.
HIDDEN = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "bleu_1", "bleu_2", "bleu_3")


def shown_scores(entry: Mapping[str, Any]) -> dict[str, float]:
    """Choose the scores of an evaluation, or of any other entry none, without their `eval_`; the loss comes first."""
    scores = {name[5:]: value for name, value in entry.items() if name.startswith("eval_")}
    return {name: scores[name] for name in sorted(scores, key=lambda name: name != "loss") if name not in HIDDEN}


def measure_of(metric: str | None) -> str:
    """Name the measure that the recipe's `metric_for_best_model` means."""
    return (metric or "loss").removeprefix("eval_")


def best_evaluation(
    log_history: Sequence[Mapping[str, Any]], metric: str | None = None, greater_is_better: bool | None = None
) -> Mapping[str, Any] | None:
    """
    Find the entry of the best evaluation, the earliest of equals.

    Args:
        log_history: Entries as the Trainer's state has them.
        metric: The recipe's `metric_for_best_model`; the loss if None.
        greater_is_better: The recipe's field of that name; if None, true unless the metric is a loss.

    Returns:
        The entry; None if no evaluation gave a finite number for this metric.
    """
    name = measure_of(metric)
    greater = not name.endswith("loss") if greater_is_better is None else greater_is_better
    entries = [entry for entry in log_history if math.isfinite(entry.get(f"eval_{name}", math.nan))]
    if not entries:
        return None
    return (max if greater else min)(entries, key=lambda entry: entry[f"eval_{name}"])

"""What is said on the console when a training is finished: what each stage came to, and what to type next."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training_mac.recipe.evaluations import best_evaluation, measure_of, shown_scores
from training_mac.recipe.file import Stage


def summarize_training(states: Sequence[Mapping[str, Any]], stages: Sequence[Stage]) -> list[str]:
    """
    Write a line or two about each stage.

    Args:
        states: The Trainer's state at the end of each stage.
        stages: The stages of the run.
    """
    lines = []
    for number, (state, stage) in enumerate(zip(states, stages, strict=True), start=1):
        log, training = state["log_history"], stage.training
        losses = [entry["loss"] for entry in log if "loss" in entry]
        minutes = max((entry["elapsed"] / 60 for entry in log if "elapsed" in entry), default=0.0)
        early = f" of {state['max_steps']}, ended early" if state["global_step"] < state["max_steps"] else ""
        fall = f", loss from {losses[0]:.4g} to {losses[-1]:.4g}" if losses else ""
        lines.append(
            f"Stage {number}, {stage.recipe.objective}: {state['global_step']} steps{early}, "
            f"{state['epoch'] or 0:.3g} epochs, {minutes:.1f} minutes{fall}."
        )
        best = best_evaluation(log, training.metric_for_best_model, training.greater_is_better)
        if best is not None:
            scores = ", ".join(f"{name} {value:.3f}" for name, value in shown_scores(best).items())
            kept = "it was kept" if training.load_best_model_at_end else "the end was kept, not this"
            kept = "the end" if best["step"] == state["global_step"] else kept
            measure = measure_of(training.metric_for_best_model)
            lines.append(f"    best {measure} after epoch {best['epoch']:.3g} (step {best['step']}; {kept}): {scores}")
    return lines


def next_command(folder: Path, eval_data: Any, naming: str | None) -> str:
    """
    Write the command that evaluates the new model.

    Args:
        folder: Folder of the model.
        eval_data: The recipe's validation data; a manifest's path stands in the command, anything else does not fit.
        naming: The recipe's word lists.
    """
    data = eval_data if isinstance(eval_data, str) and eval_data.endswith((".csv", ".jsonl")) else "MANIFEST"
    command = ["mac-eval", "captioning", "--model", str(folder), "--data", data, "--output", str(folder / "results")]
    return shlex.join([*command, *(["--naming", naming] if naming else [])])

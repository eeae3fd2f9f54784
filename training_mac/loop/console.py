"""What a training shows on the console: one bar, and above it a line at each logging and each evaluation."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training_mac.recipe.evaluations import best_evaluation, measure_of, shown_scores


# The columns of a line of training: heading, name in the Trainer's log, format.
COLUMNS = (
    ("step", "step", "{:d}"),
    ("epoch", "epoch", "{:.2f}"),
    ("loss", "loss", "{:.4g}"),
    ("rate", "learning_rate", "{:.2e}"),
    ("clips/s", "clips_per_second", "{:.3g}"),
    ("waiting", "waiting_for_data", "{:.0%}"),
)
WIDTH = 9
# Not shown, since other reports hold it.
HIDDEN = ("grad_norm", "elapsed", "total_flos", "windows_per_clip", "num_input_tokens_seen")


class TrainingConsole(TrainerCallback):
    """
    Prints a training as a table, in the place of the Trainer's own bar and dictionaries; only the main process speaks.

    The bar is drawn on a terminal alone; in a file or a pipe the lines stand without it.

    Args:
        title: What the bar says beside the step.
    """

    def __init__(self, title: str):
        self.title = title
        # In a notebook each line would be a display of its own, and a bar would need widgets.
        self.console = Console(highlight=False, markup=False, soft_wrap=True, force_jupyter=False)
        self.progress: Progress | None = None
        self.has_heading = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the bar."""
        self.has_heading = False
        # The stream is asked, since rich takes the wish for colours, which notebooks and CI have, for a terminal.
        if state.is_world_process_zero and self.console.file.isatty() and not args.disable_tqdm:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self.progress = Progress(
                *columns, TimeRemainingColumn(), console=self.console, transient=True, refresh_per_second=4
            )
            self.progress.add_task(self.title, total=state.max_steps, completed=state.global_step)
            self.progress.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar."""
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Print a line of training or of an evaluation; the end of a stage is told with the summary of the run."""
        if not state.is_world_process_zero:
            return
        entry = {**logs, "step": state.global_step, "epoch": state.epoch or 0.0}
        if "loss" in logs:
            if not self.has_heading:
                self.print("".join(heading.rjust(WIDTH) for heading, _, _ in COLUMNS), style="bold")
                self.has_heading = True
            self.print(training_line(entry))
        elif any(name.startswith("eval_") for name in logs):
            best = best_evaluation(state.log_history, args.metric_for_best_model, args.greater_is_better)
            is_best = best is not None and best["step"] == state.global_step
            line = evaluation_line(entry, best, measure_of(args.metric_for_best_model))
            self.print(line, style="green" if is_best else "cyan")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away, also from a training that failed, which would leave the terminal without a cursor."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def print(self, text: str, style: str | None = None) -> None:
        """Print above the bar."""
        self.console.print(Text(text, style=style or ""))

    def validating(self, batches: Sequence[Any]) -> Iterator[Any]:
        """Go through the batches of a validation, while the bar says how many are done."""
        for number, batch in enumerate(batches, start=1):
            self.rename(f"{self.title}, validating {number} of {len(batches)}")
            yield batch
        self.rename(self.title)

    def rename(self, title: str) -> None:
        """Have the bar say something else."""
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], description=title)


def training_line(entry: Mapping[str, Any]) -> str:
    """Write the columns of a logging, and behind them what else an objective measures."""
    cells = [form.format(entry[name]) if name in entry else "" for _, name, form in COLUMNS]
    known = {name for _, name, _ in COLUMNS}
    others = [name for name in entry if name not in known and name not in HIDDEN]
    return "".join(cell.rjust(WIDTH) for cell in cells) + "".join(f"  {name} {number(entry[name])}" for name in others)


def evaluation_line(entry: Mapping[str, Any], best: Mapping[str, Any] | None, measure: str) -> str:
    """Write the scores of an evaluation, and whether it is the best so far by a measure, or which one is."""
    cells = [form.format(entry[name]).rjust(WIDTH) for _, name, form in COLUMNS[:2]]
    shown = [f"{name} {value:.3f}" for name, value in shown_scores(entry).items()]
    line = f"{''.join(cells)}  validation: {', '.join(shown)}"
    if best is None:
        return line
    is_best = best["step"] == entry["step"]
    return f"{line}; the best {measure} {'so far' if is_best else 'was at step ' + str(best['step'])}"


def number(value: Any) -> str:
    """Write a number with four digits, a whole one with all of its own."""
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)

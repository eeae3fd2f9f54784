"""What a training shows: a line at each logging and evaluation, and one bar above which they stand."""

import io

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from training_mac.loop.console import TrainingConsole


LOG = {"loss": 2.34567, "learning_rate": 1e-3, "clips_per_second": 12.34, "waiting_for_data": 0.07, "grad_norm": 1.0}
SCORES = [{"eval_cider_d": 0.5, "eval_loss": 1.5, "eval_runtime": 3.0}, {"eval_cider_d": 0.75, "eval_loss": 1.75}]


@pytest.fixture
def show(tmp_path):
    """Shows a training of two steps, each evaluated, and gives what was written."""

    def run(terminal: bool = False, fails: bool = False, is_main: bool = True, **fields) -> str:
        arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **fields)
        state, control = TrainerState(max_steps=2, is_world_process_zero=is_main), TrainerControl()
        console = TrainingConsole("captions")
        written = io.StringIO()
        written.isatty = lambda: terminal
        console.console = Console(file=written, width=100, soft_wrap=True, highlight=False)
        console.on_train_begin(arguments, state, control)
        for step, scores in enumerate(SCORES, start=1):
            state.global_step, state.epoch = step, step / 2
            console.on_step_end(arguments, state, control)
            for entry in (LOG, scores):
                state.log_history.append({**entry, "step": step, "epoch": step / 2})
                console.on_log(arguments, state, control, logs=dict(entry))
            for _ in console.validating(range(3)):
                pass
        console.close() if fails else console.on_train_end(arguments, state, control)
        assert console.progress is None
        return written.getvalue()

    return run


def test_lines_stand_below_their_headings(show) -> None:
    assert show().splitlines() == [
        "     step    epoch     loss     rate  clips/s  waiting",
        "        1     0.50    2.346 1.00e-03     12.3       7%",
        "        1     0.50  validation: loss 1.500, cider_d 0.500; the best loss so far",
        "        2     1.00    2.346 1.00e-03     12.3       7%",
        "        2     1.00  validation: loss 1.750, cider_d 0.750; the best loss was at step 1",
    ]


def test_the_best_is_that_of_the_recipe(show) -> None:
    lines = show(metric_for_best_model="cider_d", greater_is_better=True).splitlines()
    assert lines[2].endswith("the best cider_d so far") and lines[4].endswith("the best cider_d so far")


@pytest.mark.parametrize("fails", [False, True])
def test_a_terminal_has_one_bar_and_gets_its_cursor_back(fails, show) -> None:
    text = show(terminal=True, fails=fails)
    assert "captions" in text and "2/2" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_colours_do_not_make_a_terminal(show, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = show()
    assert "\x1b[32m" in text and "\x1b[?25l" not in text and "2/2" not in text


def test_where_no_bar_is_wanted_there_is_none(show) -> None:
    text = show(terminal=True, disable_tqdm=True)
    assert "\x1b[?25l" not in text and "2/2" not in text and "the best loss so far" in text


def test_other_processes_are_silent(show) -> None:
    assert show(terminal=True, is_main=False) == ""

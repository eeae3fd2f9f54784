"""The evaluations of a study as `mac-eval` is asked for them, and whether it could be, before hours of training."""

import contextlib
import io
from pathlib import Path
from typing import Any

from evaluation_mac.cli import check_options, read_clips
from evaluation_mac.options import build_parser
from study_mac.study_file import Study


def evaluation_arguments(options: dict[str, Any], model: str, output: Path) -> list[str]:
    """The arguments of `mac-eval` for one evaluation of a study."""
    arguments = [options["task"], "--model", model, "--output", str(output)]
    for name, value in options.items():
        if name != "task":
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return arguments


def check_evaluations(study: Study, is_data_here: bool) -> None:
    """
    Try what would else end every cell after its training.

    Args:
        study: Study whose evaluations are looked at.
        is_data_here: Whether the recordings are at hand, so that manifests and tables are read as well.

    Raises:
        ValueError: `mac-eval` has no such option or value, or cannot read the data; the message names the evaluation.
    """
    for name, options in study.evaluations.items():
        told = io.StringIO()
        try:
            with contextlib.redirect_stderr(told):
                parsed = build_parser().parse_args(evaluation_arguments(options, "MODEL", Path("OUTPUT")))
            check_options(parsed)
            if is_data_here:
                read_clips(parsed)
        except SystemExit:
            message = told.getvalue().strip().rsplit("error: ", 1)[-1]
            raise ValueError(f"{study.path}: `evaluations.{name}`: {message}") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{study.path}: `evaluations.{name}`: {error}") from error

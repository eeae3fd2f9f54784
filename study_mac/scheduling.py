"""Goes through cells: one after another here, or as tasks on a Ray cluster whose machines share the study's folder."""

import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from study_mac.report import missing_scores, read_results
from study_mac.running import CellError, finished, run_cell
from study_mac.study_file import Cell, Study


def run_here(study: Study, cells: Sequence[Cell], launch: str) -> dict[Cell, str]:
    """Run the cells in their order; gives why each of those that failed did."""
    failed: dict[Cell, str] = {}
    start, ran = time.monotonic(), 0
    for number, cell in enumerate(cells, start=1):
        rest = left(start, ran, len(cells) - number)

        def tell(stage: str, number: int = number, cell: Cell = cell, rest: str = rest) -> None:
            print(f"[{number}/{len(cells)}] {cell.name}: {stage}{rest}", flush=True)

        try:
            if finished(study, cell):
                tell("finished before")
                continue
            run_cell(study, cell, launch, tell)
            tell_missing(study, ran)
        except CellError as error:
            failed[cell] = str(error)
            tell(f"FAILED: {error}")
        ran += 1
    return failed


def tell_missing(study: Study, before: int) -> None:
    """Tell of scores that the first cell has not: a name may be wrong, and else they are seen after the last one."""
    if not before:
        for line in missing_scores(study, read_results(study)):
            print(f"mac-study: {line}. If no other cell has it, correct the study now: cells stay.", file=sys.stderr)


def left(start: float, ran: int, following: int) -> str:
    """How long it takes until all is done, once a cell says how long one takes."""
    if not ran:
        return ""
    seconds = (time.monotonic() - start) / ran
    return f"; about {timedelta(seconds=round(seconds * (following + 1)))} left"


def run_on_ray(study: Study, cells: Sequence[Cell], launch: str, gpus: float) -> dict[Cell, str]:
    """
    Run the cells as Ray tasks, those that take another's encoder after it; gives why each of those that failed did.

    Args:
        study: Study of the cells.
        cells: Cells to run.
        launch: Words before the module, as for `run_cell`.
        gpus: Number of GPUs that Ray reserves for a cell; 0 reserves one CPU.
    """
    import ray

    ray.init(ignore_reinit_error=True, log_to_driver=False)
    task: Any = ray.remote(num_cpus=1, num_gpus=gpus)(ray_cell)
    failed: dict[Cell, str] = {}
    for wave in ([c for c in cells if not study.donor(c)], [c for c in cells if study.donor(c)]):
        running = {task.remote(study, cell, launch, os.getcwd()): cell for cell in wave}
        start, done, count = time.monotonic(), 0, len(running)
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            cell = running.pop(ready)
            done += 1
            try:
                error = ray.get(ready)
            except ray.exceptions.RayError as lost:  # a machine that went away
                error = str(lost).splitlines()[-1]
            if error:
                failed[cell] = error
            else:
                tell_missing(study, done - 1)
            rest = timedelta(seconds=round((time.monotonic() - start) / done * (count - done)))
            print(f"[{done}/{count}] {cell.name}: {error or 'done'}; about {rest} left", flush=True)
    return failed


def ray_cell(study: Study, cell: Cell, launch: str, folder: str) -> str | None:
    """One cell on a machine of the cluster, in the driver's folder; gives why it failed, if it did."""
    os.chdir(folder)
    try:
        run_cell(study, cell, launch, tell=lambda stage: None)
    except CellError as error:
        return str(error)
    return None

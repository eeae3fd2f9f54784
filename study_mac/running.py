"""
One cell: trained by `mac-train`, scored by `mac-eval`, each in a process of its own (`processes`). It is forked from
one that has imported everything, since a small cell would else spend most of its time on imports.

    CELL/recipe.yaml             what is trained
    CELL/model                   the run of training_mac, which goes on where it was stopped
    CELL/encoder                 its trained encoder, where another cell takes it
    CELL/evaluations/NAME        results of evaluation_mac, which go on as well
    CELL/log.txt                 what the commands printed
    CELL/failed.txt              why its last run failed, if it did
    CELL/cell.json               written last: a cell with it is finished and is never run again
    CELL/lock                    held by the process that is at the cell; the next one waits for it
    CELL/launched.lock           held until all that a launcher has started has ended
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from processing_mac.whole_files_mac import write_folder_whole, write_text_whole
from study_mac.dry_run import model_sizes, stages_of
from study_mac.evaluations import evaluation_arguments
from study_mac.processes import SERVER, run_words
from study_mac.study_file import Cell, Study
from training_mac.run.folder import Run


TRAIN, EVALUATE = "training_mac.cli", "evaluation_mac.cli"
FAILED = "failed.txt"
SERVER.set_forkserver_preload([TRAIN, EVALUATE])


class CellError(Exception):
    """A cell failed; the others go on."""


def finished(study: Study, cell: Cell) -> dict[str, Any] | None:
    """
    What a finished cell noted; None for one that is not.

    Raises:
        CellError: The folder holds a cell of another recipe.
    """
    note = read_note(study.cell_folder(cell))
    if note is None:
        return None
    if note["recipe"] != json.loads(json.dumps(study.recipe_of(cell))):
        folder = study.cell_folder(cell)
        raise CellError(f"{folder} holds a model of another recipe; choose another output_dir or delete it")
    return note if evaluated_alike(note["evaluations"], study.evaluations) else None


def read_note(folder: Path) -> dict[str, Any] | None:
    """What stands in the `cell.json` of a folder; None without one."""
    path = folder / "cell.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def evaluated_alike(noted: dict[str, dict[str, Any]] | list[str], wanted: dict[str, dict[str, Any]]) -> bool:
    """Whether all evaluations were made, with these options; a list, of names alone, is an older note."""
    if isinstance(noted, list):
        return set(wanted) <= set(noted)
    return all(noted.get(name) == json.loads(json.dumps(options)) for name, options in wanted.items())


def run_cell(study: Study, cell: Cell, launch: str = "", tell: Callable[[str], None] = print) -> dict[str, Any]:
    """
    Train and evaluate a cell, or what is left of it; its folder keeps the reason if that fails.

    Args:
        study: Study of the cell.
        cell: Cell to run.
        launch: Words before `-m training_mac.cli`, such as `accelerate launch --config_file FILE`; this Python if "".
        tell: Takes the name of each stage as it begins.

    Raises:
        CellError: A command failed; the message is its last line.
    """
    if note := finished(study, cell):
        return note
    folder = study.cell_folder(cell)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        tell("waiting for another process that is at it")
        held = lock.acquire()
    with held:
        return finished(study, cell) or train_or_note(study, cell, launch, tell)


def train_or_note(study: Study, cell: Cell, launch: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """`run_cell` for a cell that is not finished and that nobody else is at."""
    reason = study.cell_folder(cell) / FAILED
    reason.unlink(missing_ok=True)
    try:
        return train_and_evaluate(study, cell, launch, tell)
    except CellError as error:
        write_text_whole(reason, f"{error}\n")
        raise


def failures(study: Study) -> dict[str, str]:
    """Why each cell has no results whose last run failed, or whose folder holds another model, by its name."""
    reasons = {}
    for cell in study.cells:
        note = study.cell_folder(cell) / FAILED
        try:
            finished(study, cell)
        except CellError as error:
            reasons[cell.name] = str(error)
        else:
            if note.is_file():
                reasons[cell.name] = note.read_text(encoding="utf-8").strip()
    return reasons


def train_and_evaluate(study: Study, cell: Cell, launch: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """`run_cell` for a cell that is not finished, in a folder that exists."""
    folder, recipe, start = study.cell_folder(cell), study.recipe_of(cell), time.monotonic()
    before = read_note(folder)  # of a cell that lacks an evaluation
    continued = any(folder.glob("model/stage-*/*"))  # then part of the time is not known
    trained = {**recipe, **donated(study, cell)}
    write_text_whole(folder / "recipe.yaml", yaml.safe_dump(trained, sort_keys=False))
    tell("training")
    command(folder, TRAIN, [str(folder / "recipe.yaml")], launch)
    if any(study.donor(other) == cell for other in study.cells):
        keep_encoder(folder)
    seconds = None if continued else round(time.monotonic() - start, 1)
    for name, options in study.evaluations.items():
        tell(f"evaluation {name}")
        output = folder / "evaluations" / name
        command(folder, EVALUATE, evaluation_arguments(options, recipe["output_dir"], output), ok=(0, 1))
        if not (output / "results.json").is_file():
            raise CellError(f"evaluation {name} wrote no results; see {folder / 'log.txt'}")
    sizes = model_sizes(stages_of(study, cell))
    note = {
        "values": dict(cell.values),
        "recipe": recipe,
        "evaluations": study.evaluations,
        **{name: sizes[name] for name in ("parameters", "trained", "audio_tokens")},
        "training_seconds": before["training_seconds"] if before else seconds,
    }
    write_text_whole(folder / "cell.json", json.dumps(note, indent=1) + "\n")
    return note


def command(folder: Path, module: str, arguments: list[str], launch: str = "", ok: Sequence[int] = (0,)) -> None:
    """
    Run a command of this project, by the words of `launch` if there are any; what it prints goes into the cell's log.

    Raises:
        CellError: Its exit code is not one of `ok`.
    """
    file = folder / "log.txt"
    os.environ["TQDM_DISABLE"] = "1"  # bars would fill the log
    code = run_words([module, *arguments], file, launch)
    if code not in ok:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        raise CellError(f"{lines[-1] if lines else 'no output'} (exit code {code}; {file})")


def donated(study: Study, cell: Cell) -> dict[str, Any]:
    """The fields by which a cell starts with the trained encoder of another one."""
    donor = study.donor(cell)
    if donor is None:
        return {}
    if finished(study, donor) is None:
        raise CellError(f"the cell whose encoder it takes is not finished: {donor.name}")
    field = "base_audio_tower" if study.recipe.get("base_audio_tower") else "encoder_of"
    return {field: str(study.cell_folder(donor) / ("encoder" if field == "base_audio_tower" else "model"))}


def keep_encoder(folder: Path) -> None:
    """Save the trained encoder beside the model, which may be only an adapter."""
    if (folder / "encoder").is_dir():
        return
    run = Run.from_arguments([str(folder / "recipe.yaml")])
    model, _ = run.load(after=len(run.stages))
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    with write_folder_whole(folder / "encoder") as partial:
        model.model.audio_tower.save_pretrained(partial)

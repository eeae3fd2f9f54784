"""
The file of a study, and the cells that it asks for.

    base: tiny                       # a recipe that ships, or a file, also beside this one
    output_dir: runs/studies/esc50
    set: {num_train_epochs: 4}       # fields of the recipe, for all cells
    axes:
      connector: [concat, time_major]            # a known axis: values of its field
      size:                                      # any axis: fields of the recipe by value
        small: {model.text_config.num_hidden_layers: 2}
        large: {model.text_config.num_hidden_layers: 8}
      encoder_from: {own: null, small: {size: small}}   # the trained encoder of another cell, frozen
    reference: {connector: concat, size: small}  # the first value of an axis if not named
    design: one_at_a_time                        # or grid, of all axes or of those in `grid_axes`
    cells: [{size: [small, large], encoder: frozen}]    # more cells; what is not named is the reference's
    evaluations: {fold5: {task: captioning, data: runs/esc50/validation.csv, naming: esc50}}
    scores: {naming: fold5.naming_accuracy}      # what the tables show
    stage_examples: [1200000]                    # for --dry-run where the data is not at hand, as are
    text_tokens: 108                             # tokens of an example's text, and
    hardware: {1 x H100: 300}                    # what a machine does, in useful TFLOP/s

Values of `seed` never make a cell of their own: every cell is repeated for each.
"""

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_mac.recipe.file import find_recipe, read_yaml, set_dotted


FIELDS = {  # the field behind each axis that may be given as a list of values
    "size": "base_language_model",
    "rank": "lora_rank",
    "connector": "model.connector_type",
    "encoder": "encoder",
    "keep_rate": "keep_rate",
    "tower": "base_audio_tower",
    "seed": "seed",
}
DONOR = "encoder_from"
OWN = "own"
KNOWN = (
    "base",
    "output_dir",
    "set",
    "axes",
    "reference",
    "design",
    "grid_axes",
    "cells",
    "evaluations",
    "scores",
    "stage_examples",
    "text_tokens",
    "hardware",
)
COSTS = ("stage_examples", "text_tokens", "hardware")  # read by a dry run alone
DESIGNS = ("one_at_a_time", "grid")
TASKS = ("captioning", "classification", "retrieval", "transcription", "tokens", "intensity")


@dataclass(frozen=True)
class Cell:
    """One model of the design space: a value of every axis, in the order of the axes."""

    values: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """`connector=concat,size=small,seed=0`, also the name of its folder."""
        return ",".join(f"{axis}={value}" for axis, value in self.values).replace("/", "_")

    def __getitem__(self, axis: str) -> str:
        return dict(self.values)[axis]

    def without(self, *axes: str) -> "Cell":
        """The cell's values on all other axes."""
        return Cell(tuple((axis, value) for axis, value in self.values if axis not in axes))

    def replaced(self, **values: str) -> "Cell":
        """The cell with other values on some axes."""
        return Cell(tuple((axis, values.get(axis, value)) for axis, value in self.values))


@dataclass(frozen=True)
class Study:
    """
    A study, checked.

    Args:
        path: File that it stands in.
        recipe: Fields of the base recipe with `set` applied; `stages` as the recipe has them.
        folder: Folder of cells, tables and figures.
        axes: Axis -> value -> fields of the recipe; of `encoder_from` the axes on which the other cell differs.
        reference: Cell that others are compared with, with the first seed.
        cells: All cells, each with every seed.
        evaluations: Name -> options of `mac-eval`.
        scores: What tables call a score -> (evaluation, its name there).
        costs: What a dry run is told where data or machine are not at hand: `stage_examples`, a number a stage;
            `text_tokens` of an example; `hardware`, useful TFLOP/s by name.
    """

    path: Path
    recipe: dict[str, Any]
    folder: Path
    axes: dict[str, dict[str, dict[str, Any]]]
    reference: Cell
    cells: tuple[Cell, ...]
    evaluations: dict[str, dict[str, Any]]
    scores: dict[str, tuple[str, str]]
    costs: dict[str, Any]

    def donor(self, cell: Cell) -> Cell | None:
        """The cell whose trained encoder this one takes; None for its own."""
        value = dict(cell.values).get(DONOR, OWN)
        if value == OWN:
            return None
        return cell.replaced(**{DONOR: OWN}, **{axis: str(one) for axis, one in self.axes[DONOR][value].items()})

    def cell_folder(self, cell: Cell) -> Path:
        """The folder of a cell."""
        return self.folder / "cells" / cell.name

    def recipe_of(self, cell: Cell) -> dict[str, Any]:
        """The recipe of a cell, without what comes of another cell's encoder."""
        recipe = copy.deepcopy(self.recipe)
        for axis, value in cell.values:
            if axis != DONOR:
                for field, setting in self.axes[axis][value].items():
                    set_field(recipe, field, setting)
        if self.donor(cell):
            set_field(recipe, "encoder", "frozen")
        recipe["output_dir"] = str(self.cell_folder(cell) / "model")
        return recipe


def set_field(recipe: dict[str, Any], field: str, value: Any) -> None:
    """Set a field, `a.b` inside a mapping; a stage that has its own keeps it, unless all stages have one."""
    set_dotted(recipe, field, copy.deepcopy(value))
    stages, name = recipe.get("stages") or [], field.split(".")[0]
    if stages and all(name in stage for stage in stages):
        raise ValueError(f"`{field}`: every stage of the base recipe has its own, so that an axis cannot change it.")


def read_study(path: Path) -> Study:
    """
    Read and check a study.

    Raises:
        ValueError: A field, axis, value or evaluation is unknown or of a wrong kind; the message names file and field.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such study file.")
    given = read_yaml(path)
    for name in given:
        if name not in KNOWN:
            raise ValueError(f"{path}: no field {name!r}; a study has {', '.join(KNOWN)}.")
    for name in ("base", "output_dir", "axes", "evaluations"):
        if not given.get(name):
            raise ValueError(f"{path}: the field {name!r} is missing.")
    try:
        axes = read_axes(given["axes"])
        reference = complete({}, axes, given.get("reference") or {})
        cells = make_cells(given, axes, reference)
        evaluations = read_evaluations(given["evaluations"])
        scores = read_scores(given.get("scores") or {}, evaluations)
        beside = path.parent / str(given["base"])
        recipe = read_yaml(beside if beside.is_file() else find_recipe(str(given["base"])))
        for field, value in (given.get("set") or {}).items():
            set_field(recipe, field, value)
        costs = {name: given[name] for name in given if name in COSTS}
        folder = Path(given["output_dir"])
        study = Study(path, recipe, folder, axes, reference, tuple(cells), evaluations, scores, costs)
        for cell in cells:
            check_donor(study, cell)
            study.recipe_of(cell)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return study


def read_axes(given: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """Every axis with its values as text, and the fields of each."""
    if not isinstance(given, Mapping):
        raise ValueError(f"`axes` is {given!r}; expected axes with their values.")
    axes: dict[str, dict[str, dict[str, Any]]] = {}
    for axis, values in given.items():
        if isinstance(values, list) and values and axis in FIELDS:
            axes[axis] = {str(value): {FIELDS[axis]: value} for value in values}
        elif isinstance(values, Mapping) and values and all(isinstance(f, Mapping | None) for f in values.values()):
            axes[axis] = {str(value): dict(fields or {}) for value, fields in values.items()}
        else:
            raise ValueError(
                f"`axes.{axis}` is {values!r}; expected values with their fields, or a list for {', '.join(FIELDS)}."
            )
    for value, others in axes.get(DONOR, {}).items():
        for axis, other in others.items():
            if axis not in axes or axis == DONOR or str(other) not in axes[axis]:
                raise ValueError(f"`axes.{DONOR}.{value}`: no value {other!r} on an axis {axis!r}.")
    if DONOR in axes and OWN not in axes[DONOR]:
        raise ValueError(f"`axes.{DONOR}` lacks the value {OWN!r}.")
    return axes


def complete(values: Mapping[str, Any], axes: Mapping[str, Any], reference: Mapping[str, Any]) -> Cell:
    """The cell with these values, those of the reference elsewhere, and else the first of an axis."""
    for axis, value in (*values.items(), *reference.items()):
        if axis not in axes:
            raise ValueError(f"no axis {axis!r}; there are {', '.join(axes)}.")
        if str(value) not in axes[axis]:
            raise ValueError(f"axis {axis!r} has no value {str(value)!r}; it has {', '.join(axes[axis])}.")
    return Cell(tuple((a, str(values.get(a, reference.get(a, next(iter(axes[a])))))) for a in axes))


def make_cells(given: Mapping[str, Any], axes: Mapping[str, Any], reference: Cell) -> list[Cell]:
    """All cells, each once, donors before those that take their encoder."""
    design = given.get("design", "one_at_a_time")
    if design not in DESIGNS:
        raise ValueError(f"`design` is {design!r}; expected one of {', '.join(DESIGNS)}.")
    basic = dict(reference.values)
    free = [axis for axis in (given.get("grid_axes") or axes) if axis != "seed"]
    wanted: list[dict[str, Any]] = [{}]
    if design == "grid":
        complete({axis: next(iter(axes.get(axis, {"": 0}))) for axis in free}, axes, basic)  # names that are wrong
        wanted += [dict(zip(free, values, strict=True)) for values in itertools.product(*(axes[a] for a in free))]
    else:
        wanted += [{axis: value} for axis in free for value in axes[axis]]
    for entry in given.get("cells") or []:
        if not isinstance(entry, Mapping):
            raise ValueError(f"`cells`: {entry!r}; expected values by axis.")
        lists = [value if isinstance(value, list) else [value] for value in entry.values()]
        wanted += [dict(zip(entry, values, strict=True)) for values in itertools.product(*lists)]
    bare = [complete(values, axes, basic) for values in wanted]
    if "seed" in axes:
        bare = [cell.replaced(seed=seed) for cell in bare for seed in axes["seed"]]
    return sorted(dict.fromkeys(bare), key=lambda cell: dict(cell.values).get(DONOR, OWN) != OWN)


def check_donor(study: Study, cell: Cell) -> None:
    """Refuse a cell that takes the encoder of one that the study does not have, or has one that no other replaces."""
    donor = study.donor(cell)
    if donor and study.recipe_of(cell).get("base_model"):
        raise ValueError(f"the cell {cell.name} has `base_model`, whose encoder stays: `{DONOR}` is for new models.")
    if donor and donor not in study.cells:
        raise ValueError(f"the cell {cell.name} takes the encoder of {donor.name}, which the study does not have.")


def read_evaluations(given: Any) -> dict[str, dict[str, Any]]:
    """Name -> options of `mac-eval`, with its task."""
    for name, options in given.items() if isinstance(given, Mapping) else [("", given)]:
        known = options if isinstance(options, Mapping) else {}
        if known.get("task") not in TASKS or not ("data" in known or {"dataset", "audio_root"} <= known.keys()):
            raise ValueError(
                f"`evaluations.{name}` is {options!r}; expected a `task` of {', '.join(TASKS)} and `data`, or "
                "`dataset` and `audio_root`."
            )
    return {str(name): dict(options) for name, options in given.items()}


def read_scores(given: Mapping[str, str], evaluations: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What tables call a score -> (evaluation, score)."""
    scores = {}
    for name, place in given.items():
        evaluation, _, score = str(place).partition(".")
        if evaluation not in evaluations or not score:
            raise ValueError(f"`scores.{name}` is {place!r}; expected EVALUATION.SCORE of {', '.join(evaluations)}.")
        scores[name] = (evaluation, score)
    return scores


def choose(study: Study, only: Sequence[str], shard: tuple[int, int] | None) -> list[Cell]:
    """
    The cells of `--only AXIS=VALUE` and `--shard`, which keeps a cell and those that take its encoder together.

    Raises:
        ValueError: No such axis or value, or no cell is left.
    """
    chosen: Iterable[Cell] = study.cells
    for part in only:
        axis, _, value = part.partition("=")
        if value not in study.axes.get(axis, {}):
            known = "; ".join(f"{name}={'|'.join(values)}" for name, values in study.axes.items())
            raise ValueError(f"--only {part}: no such axis and value. There are {known}.")
        chosen = [cell for cell in chosen if cell[axis] == value]
    chosen = list(chosen)
    if shard:
        groups = list(dict.fromkeys(study.donor(cell) or cell for cell in chosen))[shard[0] - 1 :: shard[1]]
        chosen = [cell for cell in chosen if (study.donor(cell) or cell) in groups]
    if not chosen:
        raise ValueError(f"{study.path}: no cell is left of {len(study.cells)}.")
    return chosen

"""What came out: a row a cell and the paper's tables, as CSV, Markdown and JSON, with figures and one page."""

import csv
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation_mac.metrics.paired import paired_difference
from evaluation_mac.metrics.token_geometry import RANKS
from evaluation_mac.reports.report import format_number, write_table
from evaluation_mac.reports.tokens import PLACES
from processing_mac.whole_files_mac import write_text_whole
from study_mac.figures import draw_figures
from study_mac.page import write_page
from study_mac.readable import readable
from study_mac.running import CellError, failures, finished
from study_mac.study_file import DONOR, OWN, Cell, Study


Row = dict[str, Any]
COMPARED = tuple(  # measures of tokens that are compared with the reference's
    f"{place}_{prefix}{measure}"
    for place in PLACES
    for measure in (*RANKS, "entropy_rank", "cosine")
    for prefix in ("", "centred_")
)
AXIS_TABLES = {"encoder": "encoder", "rank": "rank", "connector": "connector", "size": "size"}


def write_study(study: Study, failed: dict[str, str]) -> Path:
    """
    Write `tables/`, `figures/` and `index.html` of the cells that are finished.

    Args:
        study: Study to report.
        failed: Reason by name of each cell that failed in this call; those of earlier calls stand in their folders.

    Returns:
        The page.

    Raises:
        ValueError: A score of the study is none that its evaluation gives.
    """
    found = read_results(study)
    check_scores(study, found)
    tables = {"results": results_table(study, found), "tokens": tokens_table(study, found)}
    tables |= {name: axis_table(study, found, axis) for name, axis in AXIS_TABLES.items() if axis in study.axes}
    tables["exchange"] = exchange_table(study, found)
    tables["runs"] = runs_table(study, found)
    tables = {name: rows for name, rows in tables.items() if rows}
    folder = study.folder / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_table(folder / f"{name}.csv", rows)
        write_text_whole(folder / f"{name}.json", json.dumps(rows, indent=1) + "\n")
        write_text_whole(folder / f"{name}.md", markdown(readable(study, name, rows)))
    figures = draw_figures(study, found, tables)
    missing = [cell.name for cell in study.cells if cell not in found]
    return write_page(study, tables, figures, missing, failures(study) | failed)


def read_results(study: Study) -> dict[Cell, dict[str, Any]]:
    """Finished cells with their note and, by evaluation, `results.json` and the rows of `clips.csv`."""
    found = {}
    for cell in study.cells:
        try:
            note = finished(study, cell)
        except CellError:  # of another recipe, which is no result of this study
            continue
        if note is None:
            continue
        evaluations = {}
        for name in study.evaluations:
            folder = study.cell_folder(cell) / "evaluations" / name
            with open(folder / "clips.csv", encoding="utf-8", newline="") as file:
                clips = {row["audio"]: row for row in csv.DictReader(file)}
            evaluations[name] = {"results": json.loads((folder / "results.json").read_text("utf-8")), "clips": clips}
        found[cell] = {"note": note, "evaluations": evaluations}
    return found


def check_scores(study: Study, found: dict[Cell, Any]) -> None:
    """
    Refuse a score that no cell's evaluation has, nor says why it was skipped; its column would stay empty.

    Raises:
        ValueError: There is such a score.
    """
    if lacking := list(missing_scores(study, found)):
        raise ValueError(f"{study.path}: {lacking[0]}.")


def missing_scores(study: Study, found: dict[Cell, Any]) -> Iterator[str]:
    """Find the scores that no cell has so far, and say what there is."""
    for score, (evaluation, name) in study.scores.items():
        results = [one["evaluations"][evaluation]["results"] for one in found.values()]
        if results and not any(name in one.get("scores", {}) or name in one.get("skipped", {}) for one in results):
            has = ", ".join(results[0].get("scores", {})) or "none; those of tokens have a table of their own"
            yield f"`scores.{score}`: {evaluation} has no score {name!r}; it has {has}"


def by_seed(cells: Iterable[Cell]) -> dict[Cell, list[Cell]]:
    """The cells without their seeds, each with those it stands for."""
    groups: dict[Cell, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.without("seed")].append(cell)
    return dict(groups)


def value_of(found: dict[Cell, Any], study: Study, cell: Cell, score: str) -> float:
    """A score of one cell; NaN where its evaluation has none."""
    evaluation, name = study.scores[score]
    scores = found[cell]["evaluations"][evaluation]["results"].get("scores", {})
    return float(scores.get(name, {}).get("value", float("nan")))


def clip_scores(found: dict[Cell, Any], study: Study, cells: list[Cell], score: str) -> dict[str, float]:
    """Recording -> mean of the score over the seeds, where the evaluation has one for every recording."""
    evaluation, name = study.scores[score]
    values: dict[str, list[float]] = defaultdict(list)
    for cell in cells:
        for audio, row in found[cell]["evaluations"][evaluation]["clips"].items():
            if row.get(name) not in (None, ""):
                values[audio].append(float(row[name]))
    return {audio: float(np.mean(one)) for audio, one in values.items() if len(one) == len(cells)}


def results_table(study: Study, found: dict[Cell, Any]) -> list[Row]:
    """A row a cell: values, seeds, each score with range and the paired difference from the reference, cost."""
    groups, rows = by_seed(found), []
    reference = groups.get(study.reference.without("seed"), [])
    for bare, cells in groups.items():
        row: Row = {**dict(bare.values), "seeds": len(cells)}
        for score in study.scores:
            row |= summary(score, [value_of(found, study, cell, score) for cell in cells])
            if reference and cells != reference:
                row |= compared(found, study, reference, cells, score)
        notes = [found[cell]["note"] for cell in cells]
        hours = [note["training_seconds"] / 3600 for note in notes if note["training_seconds"]]
        row |= {key: notes[0].get(key) for key in ("parameters", "trained", "audio_tokens")}
        row["training_hours"] = round(float(np.mean(hours)), 4) if hours else None
        rows.append(row)
    return rows


def runs_table(study: Study, found: dict[Cell, Any]) -> list[Row]:
    """A row a run, by the name of its folder: each score with its interval over clips, and seconds of training."""
    rows = []
    for cell, one in found.items():
        row: Row = {"run": cell.name}
        for score, (evaluation, name) in study.scores.items():
            value = value_of(found, study, cell, score)
            row[score] = None if np.isnan(value) else value
            given = one["evaluations"][evaluation]["results"].get("scores", {}).get(name, {})
            row[f"{score} low"], row[f"{score} high"] = given.get("interval_95") or (None, None)
        rows.append(row | {"training seconds": one["note"]["training_seconds"]})
    return rows


def summary(name: str, values: list[float]) -> Row:
    """Mean and range over seeds."""
    values = [value for value in values if not np.isnan(value)]
    if not values:
        return {name: None}
    low, high = min(values), max(values)
    mean = float(np.clip(np.mean(values), low, high))  # that of equal values may be rounded to beside them
    return {name: mean, f"{name} min": low, f"{name} max": high}


def compared(found: dict[Cell, Any], study: Study, reference: list[Cell], cells: list[Cell], score: str) -> Row:
    """The paired difference from the reference on the same clips and seeds, where the score is one of clips."""
    seeds = {dict(one.values).get("seed") for one in reference} & {dict(one.values).get("seed") for one in cells}
    reference, cells = ([c for c in some if dict(c.values).get("seed") in seeds] for some in (reference, cells))
    first, second = (clip_scores(found, study, one, score) for one in (reference, cells))
    both = [audio for audio in first if audio in second]
    if not both:
        return {}
    test = paired_difference(np.array([first[a] for a in both]), np.array([second[a] for a in both]))
    return {f"{score} difference": test["difference"], f"{score} low": test["low"], f"{score} high": test["high"],
            f"{score} p": test["p"]}  # fmt: skip


def axis_table(study: Study, found: dict[Cell, Any], axis: str) -> list[Row]:
    """Cells that differ on this axis alone: a row a setting of the other axes and score, a column a value."""
    groups: dict[Cell, dict[str, list[Cell]]] = defaultdict(dict)
    for bare, cells in by_seed(found).items():
        groups[bare.without(axis)][bare[axis]] = cells
    rows = []
    for rest, values in groups.items():
        if len(values) < 2:
            continue
        for score in study.scores:
            row: Row = {**dict(rest.values), "score": score}
            for value in study.axes[axis]:
                cells = values.get(value, [])
                row |= summary(value, [value_of(found, study, c, score) for c in cells])
            first = next(value for value in study.axes[axis] if value in values)
            for value, cells in values.items():
                if value != first and (test := compared(found, study, values[first], cells, score)):
                    row[f"{value} - {first}"] = test[f"{score} difference"]
                    row[f"{value} - {first} interval"] = (
                        f"{format_number(test[f'{score} low'])} to {format_number(test[f'{score} high'])}"
                    )
            rows.append(row)
    return rows


def exchange_table(study: Study, found: dict[Cell, Any]) -> list[Row]:
    """
    A row an encoder by the cell it was trained in and score, a column the language model it is used with: mean, range
    over seeds, and the paired difference from that language model with its own encoder.
    """
    if DONOR not in study.axes:
        return []
    changed = sorted({axis for others in study.axes[DONOR].values() for axis in others})
    cells_of: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    exchanged = [cell for cell in found if cell[DONOR] != OWN]
    own = [one for cell in exchanged for one in (study.donor(cell), cell.replaced(**{DONOR: OWN})) if one in found]
    for cell in (*exchanged, *dict.fromkeys(filter(None, own))):
        cells_of[named(study.donor(cell) or cell, changed), named(cell, changed)].append(cell)
    order = dict.fromkeys(named(cell, changed) for cell in study.cells)  # as the axes are written
    rows = []
    for trained, score in itertools.product(order, study.scores):
        row: Row = {}
        for used in order:
            if cells := cells_of.get((trained, used)):
                row |= summary(used, [value_of(found, study, cell, score) for cell in cells])
                if trained != used and (ours := cells_of.get((used, used))):
                    row |= under(used, compared(found, study, ours, cells, score), score)
        if row:
            rows.append({"trained with": trained, "score": score, **row})
    return rows


def named(cell: Cell, axes: Iterable[str]) -> str:
    """The cell's values on these axes."""
    return ",".join(cell[axis] for axis in axes)


def under(name: str, test: Row, score: str) -> Row:
    """A paired difference by the name of a column in place of the score's."""
    return {name + key.removeprefix(score): value for key, value in test.items()}


def tokens_table(study: Study, found: dict[Cell, Any]) -> list[Row]:
    """
    A row a cell: rank and similarity of its audio tokens, mean and range over seeds, with paired differences from the
    reference; before them one an untouched tower.
    """
    names = [name for name, options in study.evaluations.items() if options["task"] == "tokens"]
    rows: list[Row] = []
    if not names:
        return rows
    for one in list(found.values())[:1]:  # the towers are the same in every cell
        *towers, _ = one["evaluations"][names[0]]["results"]["models"].items()
        for name, model in towers:
            scores = {score: value["value"] for score, value in model["scores"].items()}
            rows.append({**dict.fromkeys(dict(study.reference.without("seed").values), name), **scores})
    study = replace(study, scores={measure: (names[0], measure) for measure in COMPARED})
    groups = by_seed(found)
    reference = groups.get(study.reference.without("seed"), [])
    for bare, cells in groups.items():
        measures: dict[str, list[float]] = defaultdict(list)
        for cell in cells:
            *_, model = found[cell]["evaluations"][names[0]]["results"]["models"].values()
            for name, score in model["scores"].items():
                measures[name].append(score["value"])
        row: Row = {**dict(bare.values), "seeds": len(cells)}
        for name, values in measures.items():
            row |= summary(name, values)
            if name in study.scores and reference and cells != reference:
                row |= compared(found, study, reference, cells, name)
        rows.append(row)
    return rows


def markdown(rows: list[Row]) -> str:
    """A table in Markdown."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(shown(row.get(name)) for name in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """A value as a reader wants it."""
    return "" if value is None else format_number(value) if isinstance(value, float) else str(value)

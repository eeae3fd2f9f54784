"""Tables as a person reads them: few columns, each score with its range and its difference in one place."""

from typing import Any

from evaluation_mac.reports.report import format_number
from evaluation_mac.reports.tokens import PLACES
from study_mac.study_file import Study


Row = dict[str, Any]
INTERVAL = " interval"
MEASURES = ("rank_95", "centred_rank_95", "cosine", "centred_cosine")  # of tokens
COUNTS = {"parameters": "parameters", "trained": "trained", "audio_tokens": "audio tokens of a window"}


def readable(study: Study, name: str, rows: list[Row]) -> list[Row]:
    """The rows of a table, shortened; those of `results` and of an axis keep one row a cell or value."""
    if name == "results":
        rows = [cell_row(study, row) for row in rows]
    elif name == "tokens":
        rows = [token_row(study, row) for row in rows]
    elif name == "exchange":
        rows = [exchange_row(row) for row in rows]
    elif name in study.axes:
        rows = axis_rows(study, name, rows)
    return without_constants(rows, [axis for axis in study.axes if axis != name])


def cell_row(study: Study, row: Row) -> Row:
    """A cell, named by what differs from the reference."""
    shown: Row = {"cell": label(study, row), "seeds": row["seeds"]}
    for score in study.scores:
        shown[score] = with_range(row, score)
        shown[f"{score}, less the reference's"] = with_difference(row, score)
    shown |= {title: f"{row[name]:,}" for name, title in COUNTS.items() if row.get(name) is not None}
    hours = row.get("training_hours")
    return shown | {"minutes of training": "" if hours is None else f"{60 * hours:.3g}"}


def token_row(study: Study, row: Row) -> Row:
    """The tokens of a cell, or of a tower alone, which has its name on every axis."""
    shown: Row = {"cell": label(study, row) if "seeds" in row else next(iter(row.values()))}
    for place in PLACES:
        if row.get(f"{place}_tokens") is not None:
            shown[f"{place}: tokens"] = f"{row[f'{place}_tokens']:.0f}"
        for measure in MEASURES:
            score = f"{place}_{measure}"
            words = f"{place}: {measure.replace('_', ' ')}"
            shown[words] = with_range(row, score)
            shown[f"{words}, less the reference's"] = with_difference(row, score)
    return shown


def exchange_row(row: Row) -> Row:
    """An encoder's scores, each with its range and the difference from the language model's own encoder."""
    used = [name for name in row if f"{name} min" in row]
    shown = {name: f"{with_range(row, name)} {with_difference(row, name)}".strip() for name in used}
    return {"trained with": row["trained with"], "score": row["score"], **shown}


def label(study: Study, row: Row) -> str:
    """`connector stack`, or that it is the reference."""
    reference = dict(study.reference.without("seed").values)
    return ", ".join(f"{axis} {row[axis]}" for axis, value in reference.items() if row[axis] != value) or "reference"


def with_range(row: Row, score: str) -> str:
    """`0.52 (0.51 to 0.53)`; one number if there is no range."""
    if (value := row.get(score)) is None:
        return ""
    low, high = row.get(f"{score} min"), row.get(f"{score} max")
    if low is None or high is None or low == high:
        return format_number(value)
    return f"{format_number(value)} ({format_number(low)} to {format_number(high)})"


def with_difference(row: Row, score: str) -> str:
    """`+0.02 [-0.01 to 0.05]`."""
    value, low, high = (row.get(f"{score} {name}") for name in ("difference", "low", "high"))
    if value is None or low is None or high is None:
        return ""
    return f"{'+' if value > 0 else ''}{format_number(value)} [{format_number(low)} to {format_number(high)}]"


def axis_rows(study: Study, axis: str, rows: list[Row]) -> list[Row]:
    """A row a value of the axis and setting of the others, the scores side by side, less the first value's."""
    found: dict[tuple, Row] = {}
    others = [name for name in study.axes if name not in (axis, "seed")]
    for row in rows:
        present = [value for value in study.axes[axis] if row.get(value) is not None]
        for value in present:
            key = (*(row[name] for name in others), value)
            shown = found.setdefault(key, {**{name: row[name] for name in others}, axis: value})
            shown[row["score"]] = with_range(row, value)
            pair = f"{value} - {present[0]}"
            interval = f" [{row[pair + INTERVAL]}]" if pair in row else ""
            more = f"{'+' if row.get(pair, 0) > 0 else ''}{format_number(row[pair])}" if pair in row else ""
            shown[f"{row['score']}, less that of {present[0]}"] = more + interval
    return list(found.values())


def without_constants(rows: list[Row], columns: list[str]) -> list[Row]:
    """Leave out those columns that say the same in every row."""
    same = {name for name in columns if len({str(row.get(name)) for row in rows}) < 2}
    return [{name: value for name, value in row.items() if name not in same} for row in rows]

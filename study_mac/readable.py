"""Tables as a person reads them: few columns, each score with its range and its difference in one place."""

from typing import Any

from evaluation_mac.reports.report import format_number
from study_mac.study_file import Study


Row = dict[str, Any]
INTERVAL = " interval"
COUNTS = {"parameters": "parameters", "trained": "trained", "audio_tokens": "audio tokens of a window"}


def readable(study: Study, name: str, rows: list[Row]) -> list[Row]:
    """The rows of a table, shortened; those of `results` and of an axis keep one row a cell or value."""
    if name == "results":
        rows = [cell_row(study, row) for row in rows]
    elif name in study.axes:
        rows = axis_rows(study, name, rows)
    return without_constants(rows, [axis for axis in study.axes if axis != name])


def cell_row(study: Study, row: Row) -> Row:
    """A cell, named by what differs from the reference."""
    shown: Row = {"cell": label(study, row), "seeds": row["seeds"]}
    for score in study.scores:
        shown[score] = with_range(row, score)
        shown[f"{score}, less the reference's"] = difference(
            row.get(f"{score} difference"), row.get(f"{score} low"), row.get(f"{score} high")
        )
    shown |= {title: f"{row[name]:,}" for name, title in COUNTS.items() if row.get(name) is not None}
    hours = row.get("training_hours")
    return shown | {"minutes of training": "" if hours is None else f"{60 * hours:.3g}"}


def label(study: Study, row: Row) -> str:
    """`connector stack`, or that it is the reference."""
    reference = dict(study.reference.without("seed").values)
    return ", ".join(f"{axis} {row[axis]}" for axis, value in reference.items() if row[axis] != value) or "reference"


def with_range(row: Row, score: str) -> str:
    """`0.52 (0.51 to 0.53)`."""
    if row.get(score) is None:
        return ""
    low, high = row[f"{score} min"], row[f"{score} max"]
    return format_number(row[score]) + (
        f" ({format_number(low)} to {format_number(high)})" if row["seeds"] > 1 else ""
    )


def difference(value: float | None, low: float | None, high: float | None) -> str:
    """`+0.02 [-0.01 to 0.05]`."""
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
            shown[row["score"]] = row[value]
            pair = f"{value} - {present[0]}"
            interval = f" [{row[pair + INTERVAL]}]" if pair in row else ""
            more = f"{'+' if row.get(pair, 0) > 0 else ''}{format_number(row[pair])}" if pair in row else ""
            shown[f"{row['score']}, less that of {present[0]}"] = more + interval
    return list(found.values())


def without_constants(rows: list[Row], columns: list[str]) -> list[Row]:
    """Leave out those columns that say the same in every row."""
    same = {name for name in columns if len({str(row.get(name)) for row in rows}) < 2}
    return [{name: value for name, value in row.items() if name not in same} for row in rows]

"""An evaluation as files: `results.json`, `clips.csv`, `report.md`. Each is written whole or not at all."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation_mac.reports.evaluation import Evaluation
from processing_mac.whole_files_mac import write_text_whole


def write_report(folder: Path, settings: dict[str, Any], evaluation: Evaluation, failed: dict[str, str]) -> None:
    """
    Write `results.json`, `clips.csv` and `report.md`.

    Args:
        folder: Existing folder to write to.
        settings: Options of the evaluation, by their names.
        evaluation: Scores to write.
        failed: Error of each recording that could not be read, by its name.
    """
    results = {
        "settings": settings,
        "clips": len(evaluation.clips),
        "failed": failed,
        "scores": {
            name: {"value": value, "interval_95": evaluation.intervals.get(name)}
            for name, value in evaluation.scores.items()
        },
        "skipped": evaluation.skipped,
        "missed": evaluation.missed,
        "labels": evaluation.labels,
        "confusion": evaluation.confusion,
        "ranks": evaluation.ranks,
    }
    write_text_whole(folder / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    write_table(folder / "clips.csv", evaluation.clips)
    write_text_whole(folder / "report.md", format_report(settings, evaluation, failed))


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a CSV; its columns are all that any row has, empty where a row lacks one."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_whole(path, text.getvalue())


def format_report(settings: dict[str, Any], evaluation: Evaluation, failed: dict[str, str]) -> str:
    """A title, the table of scores and what else a reader must know, in Markdown."""
    lines = [
        f"# {settings['task'].capitalize()} on {settings['dataset']}",
        "",
        f"Model `{settings['model']}`, {len(evaluation.clips)} clips. Intervals: 95 %, bootstrap.",
        "",
        "| score | value | interval |",
        "|---|---|---|",
        *(
            f"| {name} | {format_number(value)} | {format_interval(evaluation.intervals.get(name))} |"
            for name, value in evaluation.scores.items()
        ),
    ]
    if evaluation.missed:
        most = list(evaluation.missed.items())[:8]
        lines += ["", "Most missed: " + ", ".join(f"{name} {count}" for name, count in most) + "."]
    lines += [line for name, reason in evaluation.skipped.items() for line in ("", f"Skipped {name}: {reason}.")]
    if failed:
        lines += ["", f"Not counted, {len(failed)} that could not be read:", "", *(f"* {e}" for e in failed.values())]
    return "\n".join(lines) + "\n"


def format_number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def format_interval(interval: tuple[float, float] | None) -> str:
    """`low to high`, or nothing where there is none."""
    return " to ".join(map(format_number, interval)) if interval else ""

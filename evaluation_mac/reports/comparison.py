"""Several results of `mac-eval` on the same recordings: paired differences from the first, examples, one page."""

import base64
import csv
import html
import io
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from evaluation_mac.metrics.paired import paired_difference
from evaluation_mac.reports.plots import by_scale
from evaluation_mac.reports.report import format_number, write_table
from processing_mac.whole_files_mac import write_text_whole


EXAMPLES = 8  # recordings that are shown for each side of a difference
OF_THE_DATA = "reference_"  # how columns begin that say nothing of a model
ANSWERS = ("caption", "prediction", "a2t_first")  # columns of `clips.csv` that say what a model answered
HEAD = ("score", "model", "mean", "difference", "95 % interval", "p")


def read_result(folder: Path) -> dict[str, dict[str, str]]:
    """
    The rows of a result's `clips.csv` by recording.

    Raises:
        ValueError: The folder holds no results with a row a recording.
    """
    try:
        with open(folder / "clips.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ValueError(f"{folder}: expected the results of mac-eval, but {error}") from error
    if not rows or "audio" not in rows[0] or "model" in rows[0]:
        raise ValueError(f"{folder / 'clips.csv'}: expected a row a recording, as `mac-eval captioning` writes them.")
    return {row["audio"]: row for row in rows}


def manifest_of(folder: Path) -> str | None:
    """The checksum of the manifest of a result; None where it does not tell."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return results["settings"]["manifest_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compare_results(folders: Sequence[Path], output: Path) -> str:
    """
    Compare results on the recordings that all have, each with the first one, and write `compare.csv`, `compare.json`,
    `report.md` and `index.html`.

    Returns:
        The report.

    Raises:
        ValueError: A folder holds no results, they share no recording, or no score of recordings.
    """
    if len(folders) < 2:
        raise ValueError(f"expected two results or more, got {len(folders)}.")
    names = [folder.name if sum(f.name == folder.name for f in folders) == 1 else str(folder) for folder in folders]
    results = [read_result(folder) for folder in folders]
    shared = [audio for audio in results[0] if all(audio in one for one in results)]
    if not shared:
        raise ValueError(f"{' and '.join(map(str, folders))}: no recording is in all of these results.")
    columns = [name for name in next(iter(results[0].values())) if not name.startswith(OF_THE_DATA)]
    scores = [name for name in columns if all(is_score(one, name) for one in results)]
    if not scores:
        raise ValueError(f"{' and '.join(map(str, folders))}: no score of recordings is in all of these results.")
    tables = {score: [column(one, score, shared) for one in results] for score in scores}
    rows = [row(score, name, values[0], one) for score, values in tables.items()
            for name, one in zip(names, values, strict=True)]  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    write_table(output / "compare.csv", rows)
    write_text_whole(output / "compare.json", json.dumps(rows, indent=1) + "\n")
    head = (
        f"{len(shared)} recordings that all have; differences from `{names[0]}`, paired by recording. Means are over "
        "recordings: BLEU and METEOR of a whole set, in each `report.md`, are other numbers."
    )
    if len({manifest_of(folder) for folder in folders}) > 1:
        head += " The results are of different manifests: CIDEr-D weighs words by the references of each."
    report = "\n".join(["# Comparison", "", head, "", *markdown(rows)]) + "\n"
    write_text_whole(output / "report.md", report)
    examples = {
        score: {
            name: differing(results[0], one, score, shared) for name, one in zip(names[1:], results[1:], strict=True)
        }
        for score in scores
    }
    write_text_whole(output / "index.html", page(head, names[0], rows, examples))
    return report


def is_score(rows: dict[str, dict[str, str]], name: str) -> bool:
    """Whether a column holds numbers, apart from empty fields, and at least one."""
    try:
        return bool([float(row[name]) for row in rows.values() if row[name] != ""])
    except (KeyError, ValueError):
        return False


def column(rows: dict[str, dict[str, str]], name: str, shared: Sequence[str]) -> np.ndarray:
    """(recordings,) a score, NaN where a field is empty."""
    return np.array([float(rows[audio][name] or "nan") for audio in shared])


def row(score: str, name: str, first: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """A line of the table; the first model's has no difference."""
    line: dict[str, Any] = {"score": score, "model": name, "mean": float(np.nanmean(values))}
    return line if values is first else line | paired_difference(first, values)


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The table as words; the first model has no difference."""
    table = []
    for one in rows:
        test = ["", "", ""]
        if "p" in one:
            interval = f"{format_number(one['low'])} to {format_number(one['high'])}"
            test = [format_number(one["difference"]), interval, format_number(one["p"])]
        table.append([one["score"], one["model"], format_number(one["mean"]), *test])
    return table


def markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    return lines + [f"| {' | '.join(line)} |" for line in cells(rows)]


def differing(
    first: dict[str, dict[str, str]], other: dict[str, dict[str, str]], score: str, shared: Sequence[str]
) -> list[dict[str, Any]]:
    """The recordings on which two models differ most, those that the other does best first, then its worst."""
    difference = column(other, score, shared) - column(first, score, shared)
    order = [place for place in np.argsort(-difference) if difference[place] and not np.isnan(difference[place])]
    chosen = order if len(order) <= 2 * EXAMPLES else order[:EXAMPLES] + order[-EXAMPLES:]
    return [
        {"recording": shared[n], "difference": float(difference[n]), "first": answer(first[shared[n]]),
         "other": answer(other[shared[n]]), "references": first[shared[n]].get("references", "")}
        for n in chosen
    ]  # fmt: skip


def answer(fields: dict[str, str]) -> str:
    """What a model said of a recording."""
    return next((fields[name] for name in ANSWERS if fields.get(name)), "")


def page(head: str, first: str, rows: Sequence[dict[str, Any]], examples: dict[str, dict[str, list]]) -> str:
    """One HTML page with the table, its picture and the examples inside."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>Comparison</title><style>.table{overflow-x:auto}"
        "body{font:16px/1.5 system-ui;max-width:70rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;font-size:.9rem}td,th{padding:"
        ".3rem .6rem;border-bottom:1px solid #ddd;text-align:left}img{max-width:100%}</style><h1>Comparison</h1>",
        f"<p>{html.escape(head.replace('`', ''))} Intervals: 95 %, bootstrap over recordings; p: sign-flip test, "
        "not corrected for the number of scores.</p>",
        picture(rows),
        html_table(cells(rows), HEAD),
        "<h2>Where they differ most</h2>",
    ]  # fmt: skip
    for score, models in examples.items():
        for name, found in models.items():
            is_open = "" if any("<details" in part for part in parts) else " open"  # the first one shows what it is
            parts.append(f"<details{is_open}><summary>{html.escape(score)}: {html.escape(name)}</summary>")
            others = ("recording", "first", "other", "references")
            lines = [[format_number(one["difference"]), *(one[field] for field in others)] for one in found]
            parts += [html_table(lines, ["difference", "recording", first, name, "references"]), "</details>"]
    return "\n".join(parts) + "\n</html>\n"


def html_table(lines: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """A table."""
    rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
    titles = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{cells}</tr>" for cells in rows)
    return f"<div class=table><table><tr>{titles}</tr>{body}</table></div>"


def picture(rows: Sequence[dict[str, Any]]) -> str:
    """The differences with their intervals as an image; nothing without matplotlib."""
    tested = [row for row in rows if "p" in row]
    if find_spec("matplotlib") is None:
        return ""
    from matplotlib.figure import Figure

    groups = by_scale(dict.fromkeys(row["score"] for row in tested))
    lines = {scale: [row for row in tested if row["score"] in names] for scale, names in groups.items()}
    heights = [0.8 + 0.3 * len(rows) for rows in lines.values()]
    figure = Figure(figsize=(7, 0.3 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(lines), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (scale, found) in zip(panels, lines.items(), strict=True):
        axes.axvline(0, color="black", linestyle=":", linewidth=1)
        axes.hlines(range(len(found)), [row["low"] for row in found], [row["high"] for row in found])
        axes.plot([row["difference"] for row in found], range(len(found)), "o")
        axes.set_yticks(range(len(found)), [f"{row['score']}, {row['model']}" for row in found], fontsize=8)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlabel(f"difference from the first{scale and f', {scale}'}")
        axes.grid(axis="x", alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120)
    return f"<img alt='differences' src='data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}'>"

"""An evaluation as files: `results.json`, `clips.csv`, `report.md`. Each is written whole or not at all."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation_mac.reports.evaluation import Evaluation
from processing_mac.whole_files_mac import write_text_whole


EXAMPLES = 6  # captions that the report shows
MEANINGS = {
    "bleu_1": "words shared with the references, 0 to 1",
    "bleu_2": "the same of one and two words",
    "bleu_3": "the same of up to three words",
    "bleu_4": "the same of up to four words",
    "rouge_l": "longest common sequence of words, 0 to 1",
    "cider_d": "shared words weighted by how rare they are, 0 to 10; comparable on this manifest only",
    "meteor": "shared words, stems and synonyms, 0 to 1",
    "spice": "shared objects, attributes and relations, 0 to 1",
    "spider": "mean of cider_d and spice",
    "length": "words of a caption",
    "reference_length": "words of a reference",
    "vocabulary": "different words of all captions",
    "reference_vocabulary": "different words of all references",
    "naming_accuracy": "share of captions that name what is heard and nothing else",
    "accuracy": "share of recordings whose first label is right",
    "micro_f1": "F1 over all decisions",
    "macro_f1": "mean of the labels' F1",
    "map": "mean average precision over the labels",
    "wer": "word errors a word, 0 is best",
    "cer": "errors a character, 0 is best",
}
MEANINGS |= {
    f"{way}_{name}": f"{search}: {meaning}"
    for way, search in (("t2a", "a caption finds its recording"), ("a2t", "a recording finds its caption"))
    for name, meaning in (
        ("recall_1", "first"),
        ("recall_5", "among the first 5"),
        ("recall_10", "among the first 10"),
        ("map_10", "mean average precision of the first 10"),
        ("median_rank", "median place, 1 is best"),
    )
}


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
    """A title, the table of scores, what went well and what badly, and what else a reader must know, in Markdown."""
    lines = [
        f"# {settings['task'].capitalize()} on {settings['dataset']}",
        "",
        f"Model `{settings['model']}`, {len(evaluation.clips)} recordings; intervals by bootstrap over them.",
        "",
        *format_scores(evaluation),
        *format_examples(evaluation.clips),
    ]
    if evaluation.missed:
        most = list(evaluation.missed.items())[:8]
        lines += ["", "Most missed: " + ", ".join(f"{name} ({count})" for name, count in most) + "."]
    for reason in dict.fromkeys(evaluation.skipped.values()):
        names = [name for name, why in evaluation.skipped.items() if why == reason]
        lines += ["", f"Not measured: {', '.join(names)}. {reason}."]
    if failed:
        lines += ["", f"Not counted, {len(failed)} that could not be read:", "", *(f"* {e}" for e in failed.values())]
    return "\n".join(lines) + "\n"


def format_scores(evaluation: Evaluation) -> list[str]:
    """The table of scores, with a column that says what they are if any of them is among `MEANINGS`."""
    head = ["score", "value", "95 % interval", "what it is"]
    rows = [
        [name, format_number(value), format_interval(evaluation.intervals.get(name)), MEANINGS.get(name, "")]
        for name, value in evaluation.scores.items()
    ]
    width = 4 if any(row[3] for row in rows) else 3
    lines = ["| " + " | ".join(row[:width]) + " |" for row in (head, *rows)]
    return [lines[0], "|---" * width + "|", *lines[1:]]


def format_examples(clips: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of a few captions beside their first reference, from the best by CIDEr-D to the worst."""
    scored = [row for row in clips if isinstance(row.get("cider_d"), float) and row.get("references")]
    if not scored:
        return []
    ranked = sorted(scored, key=lambda row: -row["cider_d"])
    places = np.linspace(0, len(ranked) - 1, min(EXAMPLES, len(ranked))).round().astype(int)
    lines = [
        "",
        "Captions from the best to the worst:",
        "",
        "| cider_d | caption | reference | recording |",
        "|---|---|---|---|",
    ]
    for row in (ranked[place] for place in places):
        reference = str(row["references"]).split(" | ")[0]
        cells = [format_number(row["cider_d"]), row["caption"], reference, f"`{Path(row['audio']).name}`"]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return lines


def format_number(value: float) -> str:
    """Four significant digits, of which none stands beyond the fourth decimal place."""
    return f"{round(value, 4) + 0.0:.4g}"  # the sum makes 0 of -0


def format_interval(interval: tuple[float, float] | None) -> str:
    """`low to high`, or nothing where there is none."""
    return " to ".join(map(format_number, interval)) if interval else ""

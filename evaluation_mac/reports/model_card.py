"""Scores into a model card: its metadata, where the Hub reads them, and the table of its results, where people do."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard

from evaluation_mac.metrics.caption_statistics import STATISTICS
from evaluation_mac.reports.evaluation import Evaluation
from evaluation_mac.reports.report import format_interval, format_number
from processing_mac.whole_files_mac import write_text_whole


# The Hub's list of tasks has neither captioning of audio nor retrieval; this is its task of a model like MAC.
TASKS = {
    "captioning": "audio-text-to-text",
    "classification": "audio-classification",
    "retrieval": "audio-text-to-text",
}
NOT_MEASURED = "not measured"
TABLE = re.compile(r"(?<=<!-- results -->\n)(.*?)(?=<!-- end of results -->)", re.DOTALL)


def find_card(model: str) -> Path:
    """
    The card of a model's folder.

    Raises:
        ValueError: the model is no folder, or has no README.md.
    """
    path = Path(model) / "README.md"
    if not path.is_file():
        raise ValueError(f"{path}: no such model card; the model must be a folder that holds its README.md.")
    return path


def update_card(
    path: Path,
    task: str,
    dataset: str,
    evaluation: Evaluation,
    dataset_id: str | None = None,
    dataset_split: str | None = None,
) -> None:
    """
    Write the scores of a task on a data set into the card; earlier ones of the same names give way.

    Args:
        path: Path of the card.
        task: Name of the task, one of `TASKS`.
        dataset: Name of the data in the card.
        evaluation: Scores to write.
        dataset_id: Id of the data on the Hub; made of its name if None.
        dataset_split: Name of the evaluated part of the data.
    """
    card = ModelCard.load(path)
    results = [
        EvalResult(
            task_type=TASKS[task],
            task_name=task,
            dataset_type=dataset_id or dataset.lower().replace(" ", "-"),
            dataset_name=dataset,
            dataset_split=dataset_split,
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 4),
            metric_args={"interval_95": [round(bound, 4) for bound in evaluation.intervals[name]]}
            if name in evaluation.intervals
            else None,
        )
        for name, value in evaluation.scores.items()
        if name not in STATISTICS
    ]
    renewed = {identify(result) for result in results}
    kept = [result for result in card.data.eval_results or [] if identify(result) not in renewed]
    card.data.eval_results = kept + results
    card.data.metrics = sorted({result.metric_type for result in card.data.eval_results})
    card.data.model_name = card.data.model_name or path.resolve().parent.name
    write_text_whole(path, renew_table(str(card), card.data.eval_results))


def identify(result: EvalResult) -> tuple[str | None, str, str | None]:
    """What makes two results the same figure."""
    return result.task_name, result.dataset_name, result.metric_name or result.metric_type


def renew_table(text: str, results: Sequence[EvalResult]) -> str:
    """The card with the results in its table, if it has one; what they do not hold stays `not measured`."""
    found = TABLE.search(text)
    if not found:
        return text
    rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in found[0].splitlines()[2:]]
    waiting = [(row[0], row[1]) for row in rows if NOT_MEASURED in row]
    return text[: found.start()] + tabulate(results, waiting) + text[found.end() :]


def tabulate(results: Sequence[EvalResult], waiting: Iterable[tuple[str, str]]) -> str:
    """
    A Markdown table.

    Args:
        results: What was measured.
        waiting: (data, score) of what shall be; left out if it was.
    """
    lines = ["| data | score | value | 95 % interval |\n", "|---|---|---|---|\n"]
    for result in results:
        interval = format_interval((result.metric_args or {}).get("interval_95"))
        value = format_number(result.metric_value)
        lines.append(f"| {result.dataset_name} | {result.metric_name} | {value} |{interval and ' ' + interval} |\n")
    known = {(result.dataset_name, result.metric_name) for result in results}
    lines += [f"| {data} | {score} | {NOT_MEASURED} | |\n" for data, score in waiting if (data, score) not in known]
    return "".join(lines)

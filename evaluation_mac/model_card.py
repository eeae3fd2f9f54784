"""Scores into the metadata of a model card, where the Hub reads them."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard

from .evaluation import Evaluation
from .report import write_whole


TASKS = {  # the Hub's name of a task
    "captioning": "audio-to-text",
    "classification": "audio-classification",
    "retrieval": "audio-text-retrieval",
}


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


def update_card(path: Path, task: str, dataset: str, evaluation: Evaluation) -> None:
    """Write the scores of a task on a data set into the card; earlier ones of the same names give way."""
    card = ModelCard.load(path)
    results = [
        EvalResult(
            task_type=TASKS[task],
            task_name=task,
            dataset_type=dataset.lower().replace(" ", "-"),
            dataset_name=dataset,
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 4),
            metric_args={"interval_95": [round(bound, 4) for bound in evaluation.intervals[name]]}
            if name in evaluation.intervals
            else None,
        )
        for name, value in evaluation.scores.items()
    ]
    renewed = {identify(result) for result in results}
    kept = [result for result in card.data.eval_results or [] if identify(result) not in renewed]
    card.data.eval_results = kept + results
    card.data.model_name = card.data.model_name or path.resolve().parent.name
    write_whole(path, str(card))


def identify(result: EvalResult) -> tuple[str | None, str, str | None]:
    """What makes two results the same figure."""
    return result.task_name, result.dataset_name, result.metric_name or result.metric_type

"""What a run asks of its data, before its stages draw their training sets from it."""

from collections.abc import Iterable
from typing import Any

from processing_mac.dataset_mac import Clip
from training_mac.data_check import check_data
from training_mac.data_recipe import DataRecipe
from training_mac.sources import load_clips


def read_training_texts(data: DataRecipe) -> list[str]:
    """Every wording that training may draw: what a new tokenizer is made from."""
    return [text for clip in load_clips(data.train_data, data) for text in (*clip.captions, *clip.phrases)]


def read_eval_clips(data: DataRecipe) -> list[Clip]:
    """The recordings to validate on, with all their references; none if the recipe names none."""
    return load_clips(data.eval_data, data)


def check_stages(stages: Iterable[DataRecipe], processor: Any) -> None:
    """
    Check the data of all stages before the first begins, each once.

    Raises:
        ValueError: see `check_data`.
    """
    checked: list[tuple] = []
    for data in stages:
        named = (data.train_data, data.eval_data, data.audio_root, data.skip_bad_audio)
        if named not in checked:
            check_data(data, processor)
            checked.append(named)

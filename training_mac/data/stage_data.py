"""What a run asks of its data besides the training sets: all texts, and the clips to validate on."""

import logging
from typing import Any

from processing_mac.dataset_mac import Clip, summarize
from training_mac.data.check import try_audio
from training_mac.data.sources import load_clips
from training_mac.recipe.data_fields import DataRecipe


logger = logging.getLogger(__name__)


def read_training_texts(data: DataRecipe) -> list[str]:
    """Every wording that training may draw: what a new tokenizer is made from."""
    return [text for clip in load_clips(data.train_data, data) for text in (*clip.captions, *clip.phrases)]


def load_eval_clips(data: DataRecipe) -> list[Clip]:
    """The recordings to validate on, with all their references; none if the recipe names none."""
    return load_clips(data.eval_data, data, split=None)


def read_eval_clips(data: DataRecipe, extractor: Any) -> list[Clip]:
    """
    The recordings to validate on, with all their references; none if the recipe names none.

    With `skip_bad_audio` each is decoded here, and what cannot be is left out and counted in the log.

    Raises:
        ValueError: see `load_clips`; or none is left.
    """
    clips = load_eval_clips(data)
    if not data.skip_bad_audio:
        return clips
    problems = [try_audio("`eval_data`", clip.audio, extractor) for clip in clips]
    bad = [problem for found in problems for problem in found]
    if bad:
        logger.warning("%d of %d recordings are left out of validation, such as %s", len(bad), len(clips), bad[0])
    if bad and len(bad) == len(clips):
        raise ValueError(f"None of the recordings to validate on can be read.\n{summarize(bad)}")
    return [clip for clip, found in zip(clips, problems, strict=True) if not found]

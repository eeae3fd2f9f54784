"""Every row of the data and a sample of its audio, looked at before training starts: better now than in the night."""

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from processing_mac.dataset_mac import summarize
from training_mac.data.sources import read_source
from training_mac.examples.streaming import open_shards, sample_clip
from training_mac.recipe.data_fields import DataRecipe, Source, parse_sources


logger = logging.getLogger(__name__)


def check_data(stages: Iterable[DataRecipe], extractor: Any, audio_token: str) -> None:
    """
    Read every row of all stages' `train_data` and `eval_data`, and decode `check_samples` recordings of each source.

    With `skip_bad_audio`, recordings that are missing or cannot be decoded are counted in the log, and are no error.

    Args:
        stages: Their data; a source of several is looked at once.
        extractor: Decodes.
        audio_token: Stands for audio, and must not be in a text.

    Raises:
        ValueError: bad rows, with file and line: the first 20, and how many there are.
    """
    problems: list[str] = []
    checked: list[tuple[Source, bool]] = []
    for data in stages:
        for source in (*parse_sources(data.train_data, data), *parse_sources(data.eval_data, data, split=None)):
            if (source, data.skip_bad_audio) not in checked:
                checked.append((source, data.skip_bad_audio))
                problems += check_source(source, data, extractor, audio_token)
    if problems:
        raise ValueError(f"Problems with the data, {len(problems)} in all:\n{summarize(problems)}")


def check_source(source: Source, data: DataRecipe, extractor: Any, audio_token: str) -> list[str]:
    """All that is wrong with a source; recordings that are to be left out are only logged."""
    try:
        if source.format == "webdataset":
            rows, audio = check_shards(source, data, extractor)
        else:
            rows, audio = check_rows(source, data, extractor, audio_token)
    except (OSError, ValueError) as error:  # nothing can be read of it at all
        return [str(error)]
    if not data.skip_bad_audio:
        return rows + audio
    if audio:
        logger.warning("%s: %d recordings are left out, such as %s", source.path, len(audio), audio[0])
    return rows


def check_rows(source: Source, data: DataRecipe, extractor: Any, audio_token: str) -> tuple[list[str], list[str]]:
    """What is wrong with rows, and what with recordings."""
    found = read_source(source)
    rows, audio = list(found.rows.problems), list(found.missing)
    if not found.rows.clips and not rows and data.skip_bad_audio:
        rows.append(f"{source.path}: none of its recordings are there.")
    pairs = list(zip(found.rows.places, found.rows.clips, strict=True))
    for place, clip in pairs:
        if any(audio_token in text for text in (*clip.captions, clip.prompt or "")):
            rows.append(f"{place}: {audio_token} in a text; it stands for audio.")
    for index in spread(len(pairs), data.check_samples):
        place, clip = pairs[index]
        audio += try_audio(place, clip.audio, extractor)
    return rows, audio


def check_shards(source: Source, data: DataRecipe, extractor: Any) -> tuple[list[str], list[str]]:
    """The same of the beginning of a stream, which is not read to its end."""
    samples, column = open_shards(source)
    found = list(itertools.islice(samples, data.check_samples))
    rows, audio = [], []
    for sample in found:
        place, clip = f"{sample['__url__']}, {sample['__key__']}", sample_clip(sample, column, source)
        if clip is None:
            rows.append(f"{place}: no audio or no caption in the sample.")
        else:
            audio += try_audio(place, clip.audio, extractor)
    return rows, audio


def try_audio(place: str, audio: Any, extractor: Any) -> list[str]:
    """Why a recording cannot be decoded, if so."""
    try:
        extractor.load(audio)
    except (OSError, ValueError) as error:
        return [f"{place}: {error}"]
    return []


def spread(size: int, count: int) -> list[int]:
    """At most `count` of `size` rows, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).round().astype(int)).tolist() if size else []

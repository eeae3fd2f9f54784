"""Checks of every row of the data and of a sample of its audio, made before training starts and not in its middle."""

import itertools
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from training_mac.data.paraphrases import read_paraphrases
from training_mac.data.problems import Problems
from training_mac.data.shards import open_shards, read_samples, sample_clip
from training_mac.data.tables import ClipTables, from_main_process, try_audio
from training_mac.recipe.data_fields import DataRecipe, Source, parse_sources


logger = logging.getLogger(__name__)


def read_and_check(stages: Iterable[DataRecipe], tables: ClipTables, extractor: Any, audio_token: str) -> None:
    """
    Read every source of all stages into its table, and decode `check_samples` recordings of each.

    With `skip_bad_audio`, recordings that are missing or cannot be decoded are counted in the log and are no error.

    Args:
        stages: Data fields of each stage; a source that several stages name is read once.
        tables: Tables that the clips are written to.
        extractor: Feature extractor, which decodes the recordings.
        audio_token: Token that stands for audio, and so must not be in a text.

    Raises:
        ValueError: There are bad rows; the message names file and line of the first 20, and how many there are.
    """
    from_main_process(lambda: check_on_main_process(list(stages), tables, extractor, audio_token))


def check_on_main_process(stages: list[DataRecipe], tables: ClipTables, extractor: Any, audio_token: str) -> None:
    """Do the work of `read_and_check`; the main process alone calls it."""
    problems = Problems()
    checked: list[tuple[Source, bool]] = []
    for data in stages:
        if audio_token in (data.prompt or ""):
            problems.append(f"`prompt` is {data.prompt!r}; {audio_token} stands for audio, and is written by itself.")
        for source in (*parse_sources(data.train_data, data), *parse_sources(data.eval_data, data, split=None)):
            if (source, data.skip_bad_audio) not in checked:
                checked.append((source, data.skip_bad_audio))
                problems.extend(check_source(source, data, tables, extractor, audio_token))
    worded = {repr((data.paraphrases, data.train_data, data.skip_bad_audio)): data for data in stages}
    for data in worded.values():
        if data.paraphrases:
            problems.extend(check_paraphrases(data, None if problems else tables, audio_token))
    if problems:
        raise ValueError(f"Problems with the data, {problems.total} in all:\n{problems}")


def check_source(source: Source, data: DataRecipe, tables: ClipTables, extractor: Any, audio_token: str) -> Problems:
    """Find all that is wrong with a source; recordings that are to be left out are only logged."""
    try:
        if source.format == "webdataset":
            rows, audio = check_shards(source, data, extractor, audio_token)
        else:
            rows, audio = check_rows(source, data, tables, extractor, audio_token)
    except (OSError, ValueError) as error:  # nothing can be read of the source at all
        return Problems([str(error)])
    if not data.skip_bad_audio:
        rows.extend(audio)
    elif audio:
        logger.warning("%s: %d recordings are left out, such as %s", source.path, audio.total, audio[0])
    return rows


def check_rows(
    source: Source, data: DataRecipe, tables: ClipTables, extractor: Any, audio_token: str
) -> tuple[Problems, Problems]:
    """Find what is wrong with the rows of a source, and what with its recordings."""
    rows, audio = map(Problems, tables.read(source))
    clips = tables.table(source)
    if not len(clips) and not rows and data.skip_bad_audio:
        rows.append(f"{source.path}: none of its recordings are there.")
    for row in clips.indices_with(audio_token):
        rows.append(f"{clips.origin} {clips.cell('number', row)}: {audio_token} in a text; it stands for audio.")
    for index in spread(len(clips), data.check_samples):
        audio.extend(filter(None, [try_audio(clips.place(index), clips.recording(index), extractor)]))
    return rows, audio


def check_shards(source: Source, data: DataRecipe, extractor: Any, audio_token: str) -> tuple[Problems, Problems]:
    """Find the same as `check_rows` in the beginning of a stream, which is not read to its end."""
    samples, column = open_shards(source)
    rows, audio = Problems(), Problems()
    for sample in itertools.islice(read_samples(samples, source), data.check_samples):
        place, clip = f"{sample['__url__']}, {sample['__key__']}", sample_clip(sample, column, source)
        if clip is None:
            rows.append(f"{place}: no audio or no caption in the sample.")
        else:
            if any(audio_token in text for text in (*clip.captions, *clip.phrases, clip.prompt or "")):
                rows.append(f"{place}: {audio_token} in a text; it stands for audio.")
            audio.extend(filter(None, [try_audio(place, clip.audio, extractor)]))
    return rows, audio


def check_paraphrases(data: DataRecipe, tables: ClipTables | None, audio_token: str) -> Problems:
    """
    Find what is wrong with a file of paraphrases.

    Args:
        data: Data fields of a stage.
        tables: Tables with the stage's captions, of which the file may speak; None where they cannot be read.
        audio_token: Token that stands for audio.
    """
    problems = Problems()
    lines: dict[str, int] = {}
    try:
        for line, caption, paraphrases in read_paraphrases(Path(str(data.paraphrases)), problems):
            lines[caption] = line
            if any(audio_token in text for text in paraphrases):
                problems.append(f"{data.paraphrases}, line {line}: {audio_token} in a text; it stands for audio.")
    except (OSError, ValueError) as error:
        return Problems([str(error)])
    streamed = any(source.format == "webdataset" for source in parse_sources(data.train_data, data))
    if tables is not None and not streamed:  # the captions of a stream are known when it was read
        problems.extend(find_strangers(data, lines, tables))
    return problems


def find_strangers(data: DataRecipe, lines: dict[str, int], tables: ClipTables) -> Problems:
    """
    Find captions, given with their lines, that no recording has. Where recordings may be left out their captions are
    only logged, unless no caption is known at all.
    """
    unknown = dict(lines)
    for caption in tables.captions(data):
        unknown.pop(caption, None)
    strangers = Problems(
        f"{data.paraphrases}, line {line}: no recording of `train_data` has the caption {caption!r}."
        for caption, line in unknown.items()
    )
    if not strangers or not data.skip_bad_audio or len(unknown) == len(lines):
        return strangers
    logger.warning("%s: no recording has %d of the captions, such as %s", data.paraphrases, strangers.total,
                   strangers[0])  # fmt: skip
    return Problems()


def spread(size: int, count: int) -> list[int]:
    """Choose at most `count` of `size` rows at even distances, the first and the last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).round().astype(int)).tolist() if size else []

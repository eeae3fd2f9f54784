"""The tables of a run: every source is read once, on the main process, and shared by all who need its clips."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from processing_mac.dataset_mac import Clip
from training_mac.data.clip_table import ClipTable, JoinedClips, write_clips
from training_mac.data.data_error import DataError
from training_mac.data.hub_datasets import stored_audio
from training_mac.data.paraphrases import load_paraphrases
from training_mac.data.problems import Problems
from training_mac.data.sources import read_source, row_name
from training_mac.recipe.data_fields import DataRecipe, Source, parse_sources


logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class ClipTables:
    """
    A folder with a table of clips for each source, which exists within a `with` block.

    Args:
        folder: Path of the folder; for a run on several machines, on a disk that all of them see.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.found: dict[str, tuple[Problems, Problems]] = {}  # by the name of the file of a source's table
        self.opened: dict[str, ClipTable] = {}

    def __enter__(self) -> "ClipTables":
        return self

    def __exit__(self, *error: Any) -> None:
        if PartialState().is_main_process:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # the folder holds more, as a rule; a refused run leaves it empty
                self.folder.parent.rmdir()

    def file(self, source: Source) -> Path:
        """Give the file of a source's table; the weight of the source makes no difference to it."""
        told = repr(replace(source, weight=1.0))
        return self.folder / f"{hashlib.blake2b(told.encode(), digest_size=8).hexdigest()}.arrow"

    def read(self, source: Source) -> tuple[Problems, Problems]:
        """
        Write the clips of a source, on the main process alone, unless this was done before.

        Returns:
            What is wrong with rows, and which recordings are missing.

        Raises:
            ValueError: Nothing of the source can be read.
        """
        file = self.file(source)
        if file.name not in self.found:
            problems, missing = Problems(), Problems()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_clips(read_source(source, problems, missing), file)
            self.found[file.name] = problems, missing
        return self.found[file.name]

    def table(self, source: Source) -> ClipTable:
        """Open a source's table: each recording once with all its captions, for OpenAQA once for each question."""
        file = self.file(source)
        if file.name not in self.opened:
            stored = stored_audio(source) if source.format == "dataset" else None
            self.opened[file.name] = ClipTable(file, row_name(source), source.format != "openaqa", stored)
        return self.opened[file.name]

    def training(self, data: DataRecipe) -> list[tuple[Source, ClipTable]]:
        """Give the sources to learn from, each with its clips."""
        return [(source, self.table(source)) for source in parse_sources(data.train_data, data)]

    def texts(self, data: DataRecipe) -> Iterator[str]:
        """Go through every wording that training may draw, from which a new tokenizer is made."""
        yield from (text for _, table in self.training(data) for text in table.texts())
        yield from chain(*load_paraphrases(data.paraphrases).values())

    def captions(self, data: DataRecipe) -> Iterator[str]:
        """Go through every caption to learn from."""
        return (text for _, table in self.training(data) for text in table.texts("captions"))

    def prompts(self, data: DataRecipe) -> set[str | None]:
        """
        Give the prompts that training may ask, None for the default: all if they are one or two, else some.

        Shards are not listed: of these it is the prompt of the source alone.
        """
        found: set[str | None] = set()
        for source in parse_sources(data.train_data, data):
            found |= {source.prompt} if source.format == "webdataset" else self.table(source).prompts()
        return {prompt or data.prompt for prompt in found}

    def validation(self, data: DataRecipe) -> JoinedClips:
        """Give the recordings to validate on, with all their references; none if the recipe names none."""
        sources = parse_sources(data.eval_data, data, split=None)
        return JoinedClips([self.table(source) for source in sources])

    def readable_validation(self, data: DataRecipe, extractor: Any) -> Sequence[Clip]:
        """
        Give the recordings to validate on. With `skip_bad_audio` each is decoded here, on the main process, and those
        that cannot be decoded are left out and counted in the log.

        Raises:
            ValueError: No recording is left.
        """
        clips = self.validation(data)
        if not data.skip_bad_audio:
            return clips
        bad = from_main_process(lambda: find_unreadable(clips, extractor))
        if bad:
            logger.warning("%d of %d recordings are left out of validation, such as %s", len(bad), len(clips),
                           next(iter(bad.values())))  # fmt: skip
        if bad and len(bad) == len(clips):
            raise DataError(f"None of the recordings to validate on can be read.\n{Problems(bad.values())}")
        return [clips[index] for index in range(len(clips)) if index not in bad]


def find_unreadable(clips: Sequence[Clip], extractor: Any) -> dict[int, str]:
    """Find the clips that cannot be decoded: a mapping from their indices to the reasons."""
    tried = ((index, try_audio("`eval_data`", clip.audio, extractor)) for index, clip in enumerate(clips))
    return {index: problem for index, problem in tried if problem is not None}


def try_audio(place: str, audio: Any, extractor: Any) -> str | None:
    """Give the reason why a recording cannot be decoded; None if it can."""
    try:
        extractor.load(audio)
    except (OSError, ValueError) as error:
        return f"{place}: {error}"
    return None


def from_main_process(work: Callable[[], Result]) -> Result:
    """
    Do some work on the main process, and give its result on every process.

    Raises:
        OSError, ValueError: On the main process, as `work` does.
        SystemExit: On the other processes in this case; the main process says why.
    """
    state, failure, result = PartialState(), None, None
    if state.is_main_process:
        try:
            result = work()
        except (OSError, ValueError) as error:
            failure = error
    shared: list[Any] = [failure is None, result]
    broadcast_object_list(shared)
    if failure is not None:
        raise failure
    if not shared[0]:
        raise SystemExit(2)
    return shared[1]

"""
The training set that the training loop draws its examples from.

Every random choice derives from seed, epoch and row, so that a run repeats whatever the number of workers and
processes.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from processing_mac.dataset_mac import Clip, summarize
from training_mac.data.clip_table import JoinedClips
from training_mac.data.data_error import DataError
from training_mac.data.features import LogMels
from training_mac.data.tables import ClipTables
from training_mac.examples.scenes import Recording, SceneMaker, may_meet
from training_mac.examples.streaming import StreamingTrainingSet
from training_mac.recipe.data_fields import TWO, DataRecipe, parse_sources


logger = logging.getLogger(__name__)

MOST_DRAWS = 100_000  # draws of a second recording before the search is given up
CHARACTERS_PER_TOKEN = 4.5  # mean of English in the vocabularies of language models, a guess for grouping by length


def make_training_set(data: DataRecipe, processor: Any, seed: int, tables: ClipTables) -> Dataset:
    """
    Make the examples of `train_data`: dicts with `input_features` (windows, frames, mel bins) float32, `caption`,
    `prompt` (None for the processor's), `audio` (the name of the file) and `spans`, which `Scene` explains.

    Raises:
        ValueError: There is no data, or it is bad.
    """
    sources = parse_sources(data.train_data, data)
    if not sources:
        raise ValueError("`train_data` is missing: name a manifest, a dataset or shards to learn from.")
    streams = [source for source in sources if source.format == "webdataset"]
    if streams:
        if len(sources) > 1:
            raise ValueError("`train_data`: shards are streamed, and a stream cannot be mixed with other sources.")
        return StreamingTrainingSet(streams[0], data, processor.feature_extractor, seed)
    if data.share_of_two > 0 and any(one.format == "openaqa" for one in sources):
        raise ValueError(f"{', '.join(f'`{name}`' for name in TWO)}: answers to questions cannot be put together.")
    clips = [table for _, table in tables.training(data)]
    return TrainingSet(clips, [source.weight for source in sources], data, processor, seed)


class TrainingSet(Dataset):
    """
    Augmented scenes of one or several sources.

    Args:
        sources: Clips of each source.
        weights: Number of times that an epoch goes through each source.
        data: Data fields of the recipe: augmentation, cache, and what to do with unreadable audio.
        processor: Processor whose feature extractor and sizes the examples follow.
        seed: Seed of every random choice.

    Attributes:
        clips: The clips of all sources, one after another.
        log_mels: The raw log-mels of the clips, (frames, mel bins) each.
    """

    def __init__(
        self, sources: Sequence[Sequence[Clip]], weights: Sequence[float], data: DataRecipe, processor: Any, seed: int
    ):
        self.clips = JoinedClips(sources)
        self.mixture = Mixture([len(clips) for clips in sources], weights, seed)
        self.processor = processor
        self.extractor = processor.feature_extractor
        self.scenes = SceneMaker(data, processor.feature_extractor)
        self.log_mels: Any = LogMels(self.clips.recordings, processor.feature_extractor, data.cache_features)
        self.skip_bad_audio = data.skip_bad_audio
        self.seed = seed
        # In shared memory: workers must see the epoch, and the loop what workers could not read.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.unreadable = torch.zeros(len(self.clips), dtype=torch.bool).share_memory_()
        self.note_unreadable(self.log_mels.left_out)
        if data.share_of_two > 0:
            for clip in self.clips:
                if not clip.scene:  # this search refuses data without two different recordings
                    self.draw_other(clip, np.random.default_rng(seed))
                    break

    def note_unreadable(self, rows: list[int]) -> None:
        """Count the rows that could not be read when the cache was made."""
        if rows and not self.skip_bad_audio:
            names = [f"{self.clips[row].audio} cannot be read; the log says why." for row in rows]
            raise DataError(summarize(names))
        self.unreadable[rows] = True

    @property
    def epoch(self) -> int:
        """The epoch that the Trainer's data loader has set."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer's data loader calls this at the start of each."""
        self._epoch.fill_(epoch)

    @property
    def num_skipped(self) -> int:
        """The number of recordings that this process and its workers could not read so far."""
        return int(self.unreadable.sum())

    @property
    def skipped(self) -> list[str]:
        """The names of the recordings that could not be read."""
        return [str(self.clips[row].audio) for row in self.unreadable.nonzero().flatten().tolist()]

    @property
    def lengths(self) -> list[int]:
        """The estimated tokens of each row as an example of one recording; unknown lengths count as one window."""
        rows = [self.mixture.row(index, 0) for index in range(len(self))]
        known = {row: self.estimate_length(row) for row in dict.fromkeys(rows)}
        return [known[row] for row in rows]

    def estimate_length(self, row: int) -> int:
        """Estimate the tokens of audio, prompt and caption of a row."""
        clip, frames = self.clips[row], self.log_mels.num_frames(row) or 1
        if self.scenes.most_frames is not None:
            frames = min(frames, self.scenes.most_frames)
        windows = -(-frames // self.processor.feature_extractor.window_frames)
        texts = len(clip.prompt or self.processor.default_prompt) + len(clip.captions[0])
        return windows * self.processor.audio_tokens_per_window + round(texts / CHARACTERS_PER_TOKEN)

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        first = self.load(self.mixture.row(index, self.epoch))
        kind = self.scenes.draw_kind(first[0], rng)
        if kind == "single":
            scene = self.scenes.single(first, rng)
        else:
            second = self.load_other(first[0], rng)
            scene = getattr(self.scenes, kind)(first, second, rng)
        return self.scenes.example(scene, first[0], rng)

    def draw_other(self, clip: Clip, rng: np.random.Generator) -> int:
        """Draw the row of a clip that may follow or overlay this one."""
        for _ in range(MOST_DRAWS):
            row = int(rng.integers(len(self.clips)))
            if may_meet(clip, self.clips[row]):
                return row
        raise DataError(f"Found nothing to put together with {clip.audio}: expected other files, of other sources.")

    def load_other(self, clip: Clip, rng: np.random.Generator) -> Recording:
        """Draw and load a readable clip that may follow or overlay this one, with its log-mel."""
        for _ in range(MOST_DRAWS):
            row = self.draw_other(clip, rng)
            if not self.unreadable[row] and (log_mel := self.read(row)) is not None:
                return self.clips[row], log_mel
        raise DataError(f"Nothing that could be put together with {clip.audio} can be read.")

    def load(self, row: int) -> Recording:
        """
        Load a clip and its log-mel; if unreadable audio is to be skipped, the next readable clip takes its place.

        Raises:
            ValueError: The audio, which the message names, cannot be read.
        """
        for candidate in (*range(row, len(self.clips)), *range(row)):
            if (log_mel := self.read(candidate)) is not None:
                return self.clips[candidate], log_mel
        raise DataError("None of the recordings can be read.")

    def read(self, row: int) -> torch.Tensor | None:
        """Read a clip's log-mel; None, which is counted, if it cannot be read and is to be skipped."""
        try:
            return self.log_mels[row]
        except (OSError, ValueError) as error:
            if not self.skip_bad_audio:
                raise DataError(f"{error} (`skip_bad_audio: true` goes on without it.)") from error
            if not self.unreadable[row]:
                self.unreadable[row] = True
                logger.warning("Skipped, %d so far: %s", self.num_skipped, error)
            return None

    def readable_rows(self) -> Iterator[int]:
        """Go through every clip or, with `skip_bad_audio`, through each whose audio was tried and can be read."""
        return (row for row in range(len(self.clips)) if not self.skip_bad_audio or self.read(row) is not None)


class Mixture:
    """
    Chooses the row and source that each example of an epoch is made around.

    A source of weight 1 is gone through once an epoch; of weight 2.5, twice, and another random half of it once more.

    Args:
        sizes: Number of rows of each source.
        weights: Number of times that an epoch goes through each source.
        seed: Seed of the choice of the halves.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        self.sizes = list(sizes)
        self.seed = seed
        counts = [max(1, round(size * weight)) for size, weight in zip(sizes, weights, strict=True)]
        self.ends = np.cumsum(counts)
        self.starts = np.cumsum([0, *sizes])
        self.orders: dict[int, tuple[int, np.ndarray]] = {}  # for each source, an epoch and its permutation

    def __len__(self) -> int:
        return int(self.ends[-1])

    def row(self, index: int, epoch: int) -> int:
        """Give the row of an example, counted over all sources."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)} examples.")
        source = int(np.searchsorted(self.ends, index, side="right"))
        size, begin = self.sizes[source], int(self.ends[source - 1]) if source else 0
        passes, row = divmod(index - begin, size)
        whole_passes = (int(self.ends[source]) - begin) // size
        if passes == whole_passes:
            row = int(self.order(source, epoch)[row])
        return int(self.starts[source]) + row

    def order(self, source: int, epoch: int) -> np.ndarray:
        """Give a random order of a source's rows, another one each epoch."""
        if self.orders.get(source, (None,))[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch, source, self.sizes[source]])
            self.orders[source] = (epoch, rng.permutation(self.sizes[source]))
        return self.orders[source][1]

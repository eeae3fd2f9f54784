"""Scenes drawn from a stream of shards, for data that is too large to list or that stays elsewhere."""

import itertools
import logging
import multiprocessing
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset, get_worker_info

from training_mac.data.data_error import DataError
from training_mac.data.features import compute_log_mel
from training_mac.data.shards import open_shards, read_samples, sample_clip
from training_mac.examples.scenes import Recording, SceneMaker, may_meet
from training_mac.recipe.data_fields import DataRecipe, Source


logger = logging.getLogger(__name__)

SHUFFLE_BUFFER = 256  # encoded clips that a worker holds and draws the next one from


class StreamingTrainingSet(IterableDataset):
    """
    An endless stream of augmented scenes, of which training takes `max_steps` steps.

    Shards are dealt out to the processes, and those of a process to its workers; where there are fewer shards than
    processes, samples are. So the data loader must not deal them out once more: it is a plain
    `torch.utils.data.DataLoader`. What happens to a sample derives from seed, pass and its key; the order of samples
    depends on the number of processes and workers, too. In a scene of two recordings the second is the one that came
    before in the stream.

    Args:
        source: Source of shards.
        data: Data fields of the recipe: augmentation, and what to do with unreadable audio.
        extractor: Feature extractor that makes log-mels and windows.
        seed: Seed of every random choice.
    """

    def __init__(self, source: Source, data: DataRecipe, extractor: Any, seed: int):
        self.source = source
        self.scenes = SceneMaker(data, extractor)
        self.skip_bad_audio = data.skip_bad_audio
        self.seed = seed
        self.epoch = 0
        self.process, self.num_processes = PartialState().process_index, PartialState().num_processes
        self._skipped = multiprocessing.Value("q", 0)  # workers add to the number, and the training loop reads it
        self.samples, self.column = open_shards(source)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch from which passes are counted; the Trainer's data loader calls this."""
        self.epoch = epoch

    @property
    def num_skipped(self) -> int:
        """The samples that this process and its workers could not read so far, counted each time that they came by."""
        return self._skipped.value

    def __iter__(self) -> Iterator[dict[str, Any]]:
        previous: Recording | None = None
        for number in itertools.count(self.epoch):
            read = 0
            for sample in read_samples(self.deal(number), self.source):
                recording = self.load(sample)
                if recording is None:
                    continue
                read += 1
                yield self.make_example(recording, previous, number, str(recording[0].audio["path"]))
                previous = recording
            worker = get_worker_info()
            if not read and worker is not None and worker.id > 0:
                return  # there are more workers than shards
            if not read:
                raise DataError(f"{self.source.path}: holds nothing that can be read.")

    def deal(self, number: int) -> Any:
        """Give this process's samples of a pass in an order of its own; `datasets` deals out shards to the workers."""
        shuffled = self.samples.shuffle(seed=self.seed, buffer_size=SHUFFLE_BUFFER)
        shuffled.set_epoch(number)
        return split_dataset_by_node(shuffled, self.process, self.num_processes)

    def load(self, sample: dict[str, Any]) -> Recording | None:
        """
        Load a clip and its log-mel; None if it is to be skipped.

        Raises:
            ValueError: The sample, whose shard and key are named, has no audio or caption, or cannot be read.
        """
        place = f"{sample['__url__']}, {sample['__key__']}"
        try:
            clip = sample_clip(sample, self.column, self.source)
            if clip is None:
                raise ValueError(f"{place}: no audio or no caption in the sample.")
            return clip, compute_log_mel(clip.audio, self.scenes.extractor)
        except ValueError as error:
            if not self.skip_bad_audio:
                raise DataError(f"{error} (`skip_bad_audio: true` goes on without it.)") from error
            with self._skipped.get_lock():
                self._skipped.value += 1
            logger.warning("Skipped, %d so far: %s", self.num_skipped, error)
            return None

    def make_example(self, recording: Recording, previous: Recording | None, number: int, key: str) -> dict[str, Any]:
        """Make a scene of this sample, and of the one before if the scene is to be of two."""
        rng = np.random.default_rng([self.seed, number, zlib.crc32(key.encode())])
        kind = self.scenes.draw_kind(recording[0], rng)
        if kind == "single" or previous is None or not may_meet(recording[0], previous[0]):
            scene = self.scenes.single(recording, rng)
        else:
            scene = getattr(self.scenes, kind)(recording, previous, rng)
        return {**self.scenes.example(scene, recording[0], rng), "audio": key}

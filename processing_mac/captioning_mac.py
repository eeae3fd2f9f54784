"""Captions many files: decoded ahead, in batches of like length, and as many batches at a time as cores are free."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from .free_cores_mac import FreeCores
from .pipeline_mac import AudioCaptioningPipeline
from .reading_ahead_mac import Clip, in_order, read_in_batches, warnings_of_decoding_printed


Item = TypeVar("Item")
Done = TypeVar("Done")
Result = tuple[int, tuple[str, dict[str, Any] | ValueError]]  # place of a file; the file, and its captions or error


def caption_files(
    captioner: AudioCaptioningPipeline,
    files: list[str],
    batch_size: int,
    load: Callable[[str], Any] | None = None,
    free_cores: FreeCores | None = None,
) -> Iterator[tuple[str, dict[str, Any] | ValueError]]:
    """
    Caption files in batches of like length, while the next ones are decoded in threads.

    Args:
        captioner: Pipeline that writes the captions.
        files: Paths or addresses of the recordings.
        batch_size: Number of recordings in a batch.
        load: Loads the waveform, (samples,), of a file, in threads; the captioner's feature extractor if None.
        free_cores: Chooses how many batches are captioned at a time, by one of torch's threads each or, where one
            batch is all there is, torch's threads for it. One batch at a time by the threads that are set if None.

    Yields:
        Each file, in the order of `files`, with its `caption` and, if they were asked for, `segments`, or with the
        error why it cannot be read.
    """
    extractor = captioner.feature_extractor
    with warnings_of_decoding_printed(sys.stderr):
        yield from in_order(
            caption_batches(captioner, files, batch_size, load or (lambda file: extractor.load(file)[0]), free_cores)
        )


def caption_batches(
    captioner: AudioCaptioningPipeline,
    files: list[str],
    batch_size: int,
    load: Callable[[str], Any],
    free_cores: FreeCores | None,
) -> Iterator[Result]:
    """Yield what `caption_files` does as soon as it is known, with the place of each file among `files`."""
    rate = captioner.feature_extractor.sampling_rate

    def caption(batch: list[Clip] | tuple[int, ValueError]) -> list[Result]:
        if isinstance(batch, tuple):
            place, error = batch
            return [(place, (files[place], error))]
        clips = [{"array": clip.waveform, "sampling_rate": rate} for clip in batch]
        results = captioner(clips, batch_size=len(clips))
        return [(clip.place, (clip.file, result)) for clip, [result] in zip(batch, results, strict=True)]

    if captioner.is_compiled:
        free_cores = None
    batches = read_in_batches(load, files, batch_size, rate)
    if free_cores and len(files) > batch_size:
        done = at_a_time(free_cores.count, caption, batches)
    else:
        if free_cores:
            free_cores.take()
        done = map(caption, batches)
    for results in done:
        yield from results


def at_a_time(count: Callable[[], int], work: Callable[[Item], Done], items: Iterator[Item]) -> Iterator[Done]:
    """
    Do `count()` pieces of work at a time, each in a thread in which torch has one, and give the results in order.

    Threads that share each small operation wait for each other; those with a batch each do not.
    """
    running: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(None, "caption", torch.set_num_threads, (1,)) as threads:
        for item in items:
            running.append(threads.submit(work, item))
            while len(running) >= count():
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


__all__ = ["caption_files"]

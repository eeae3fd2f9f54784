"""Decodes recordings in threads while the model works, and groups those of like length into batches."""

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm


DECODERS = 2  # threads; on a CPU the model itself needs the rest
POOL_BATCHES = 8  # batches among whose recordings those of like length are chosen
POOL_SECONDS = 1200.0  # of sound that may be decoded and waiting: 77 MB at 16 kHz


class Clip(NamedTuple):
    """A decoded recording: its place among all, its name, and its waveform, (samples,)."""

    place: int
    file: str
    waveform: np.ndarray


class Room:
    """
    Lets threads decode only while there is room for more sound; what is needed next always has room.

    Args:
        samples: Number of samples that may be decoded and waiting.
    """

    def __init__(self, samples: float):
        self.free = samples
        self.needed = -1
        self.closed = False
        self.change = threading.Condition()

    def load(self, load: Callable[[str], np.ndarray], place: int, file: str) -> np.ndarray:
        """Decode a file once there is room for it; called in threads."""
        with self.change:
            self.change.wait_for(lambda: self.free > 0 or place == self.needed or self.closed)
        if self.closed:
            return np.zeros(0, dtype=np.float32)  # nobody reads it
        waveform = load(file)
        with self.change:
            self.free -= len(waveform)
        return waveform

    def need(self, place: int) -> None:
        """Make room for a file that is needed next."""
        with self.change:
            self.needed = place
            self.change.notify_all()

    def give_back(self, samples: int) -> None:
        """Make room where sound is not kept any more."""
        with self.change:
            self.free += samples
            self.change.notify_all()

    def close(self) -> None:
        """Let the threads end without decoding."""
        with self.change:
            self.closed = True
            self.change.notify_all()


def read_in_batches(
    load: Callable[[str], np.ndarray], files: Sequence[str], batch_size: int, rate: int
) -> Iterator[list[Clip] | tuple[int, ValueError]]:
    """
    Decode files ahead of the model and give them in batches of like length.

    A batch is the recording that waits longest, with those of the waiting ones that are nearest to it in length: what
    shorter ones are padded with costs time. How many wait is bounded by number and by seconds.

    Args:
        load: Decodes a file to (samples,); called in threads.
        files: Names of the files.
        batch_size: Most recordings in a batch.
        rate: Samples in a second.

    Yields:
        Batches, and for each file that cannot be read its place among `files` and why.
    """
    pool: list[Clip] = []
    room = Room(POOL_SECONDS * rate)
    with ThreadPoolExecutor(DECODERS, "decode") as threads:
        waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
        coming = iter(enumerate(files))
        try:
            while True:
                # Twice a batch, so that more than the model takes may come, and the choice of like lengths grow.
                while len(waiting) < 2 * batch_size and (item := next(coming, None)):
                    waiting.append((item[0], threads.submit(room.load, load, *item)))
                if waiting and wants_more(pool, batch_size, room.free > 0, waiting[0][1].done()):
                    place, future = waiting.popleft()
                    room.need(place)
                    try:
                        pool.append(Clip(place, files[place], future.result()))
                    except ValueError as error:
                        yield place, error
                elif pool:
                    batch = take_batch(pool, batch_size)
                    yield batch
                    room.give_back(sum(len(clip.waveform) for clip in batch))
                else:
                    return
        finally:
            for _, future in waiting:
                future.cancel()
            room.close()


def wants_more(pool: list[Clip], batch_size: int, has_room: bool, is_ready: bool) -> bool:
    """Tell whether the next recording is to join the pool: to fill a batch in any case, beyond that if it is ready."""
    if pool and not has_room and not is_ready:
        return False
    return len(pool) < batch_size or (is_ready and len(pool) < POOL_BATCHES * batch_size)


def take_batch(pool: list[Clip], batch_size: int) -> list[Clip]:
    """Take the recording that waits longest and those nearest to it in length out of the pool, in their order."""
    length = len(pool[0].waveform)
    nearest = sorted(pool[1:], key=lambda clip: (abs(len(clip.waveform) - length), clip.place))[: batch_size - 1]
    batch = [pool[0], *sorted(nearest)] if batch_size > 1 else pool[:1]
    taken = {clip.place for clip in batch}
    pool[:] = [clip for clip in pool if clip.place not in taken]
    return batch


def in_order(results: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    """Give results in the order of their places, each as soon as all before it are there."""
    early: dict[int, Any] = {}
    expected = 0
    for place, result in results:
        early[place] = result
        while expected in early:
            yield early.pop(expected)
            expected += 1


@contextmanager
def warnings_of_decoding_printed(stream: Any) -> Iterator[None]:
    """
    Print a line for each warning about lost sound while the `with` block lasts, whichever thread it comes from.

    Python keeps one list of filters for all threads, so that threads cannot catch warnings each for itself.
    """
    show = warnings.showwarning

    def print_line(message: Any, category: Any, filename: str, *rest: Any, **more: Any) -> None:
        if filename.endswith("audio_mac.py"):
            tqdm.write(f"{message}", file=stream)
        else:
            show(message, category, filename, *rest, **more)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module=r".*audio_mac")
        warnings.showwarning = print_line  # type: ignore[assignment]
        yield


__all__ = ["in_order", "read_in_batches", "warnings_of_decoding_printed"]

"""Measures how many clips a second are trained on, how long they are, and how long they are waited for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Throughput:
    """Counts clips and seconds between two readings; evaluation and saving do not count."""

    def __init__(self) -> None:
        self.step_start: float | None = None
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self.waited = self.trained = 0.0
        self.clips = 0
        self.windows: int | torch.Tensor = 0
        if self.step_start is not None:
            self.step_start = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wrap the fetching of batches; the time between two fetches counts as training."""
        start = time.perf_counter()
        self.end_step(start)
        yield
        self.step_start = time.perf_counter()
        self.waited += self.step_start - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Wrap work that is neither fetching nor training, such as evaluation."""
        self.end_step(time.perf_counter())
        running, self.step_start = self.step_start is not None, None
        yield
        self.step_start = time.perf_counter() if running else None

    def end_step(self, now: float) -> None:
        """Count the training up to the time `now`, in seconds."""
        if self.step_start is not None:
            self.trained += now - self.step_start
            self.step_start = now

    def read(self) -> dict[str, float]:
        """
        Read what was counted since the last reset: `clips_per_second`, `windows_per_clip`, and `waiting_for_data`, a
        share of the time, 0 to 1.
        """
        self.end_step(time.perf_counter())
        total = self.waited + self.trained
        if total == 0:
            return {}
        length = {"windows_per_clip": float(self.windows / self.clips)} if self.clips else {}
        return {"clips_per_second": self.clips / total, "waiting_for_data": self.waited / total, **length}

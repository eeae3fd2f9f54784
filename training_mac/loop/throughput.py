"""How many clips a second, and which share of the time went into waiting for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Throughput:
    """Counts between two readings; evaluation and saving do not count."""

    def __init__(self) -> None:
        self.step_start: float | None = None
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self.waited = self.trained = 0.0
        self.clips = 0
        if self.step_start is not None:
            self.step_start = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the fetching of batches; what lies between two of these is training."""
        start = time.perf_counter()
        self.end_step(start)
        yield
        self.step_start = time.perf_counter()
        self.waited += self.step_start - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around work that is neither."""
        self.end_step(time.perf_counter())
        running, self.step_start = self.step_start is not None, None
        yield
        self.step_start = time.perf_counter() if running else None

    def end_step(self, now: float) -> None:
        """Count the training up to now."""
        if self.step_start is not None:
            self.trained += now - self.step_start
            self.step_start = now

    def read(self) -> dict[str, float]:
        """`clips_per_second` and `waiting_for_data` (a share, 0 to 1) since the last reset."""
        self.end_step(time.perf_counter())
        total = self.waited + self.trained
        if total == 0:
            return {}
        return {"clips_per_second": self.clips / total, "waiting_for_data": self.waited / total}

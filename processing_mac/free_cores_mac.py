"""Tells how many cores of the machine other programs leave free, and gives the model as many threads."""

import math
import time
from typing import NamedTuple

import psutil
import torch


SHORTEST = 0.2  # seconds between two looks: the system counts in steps of 0.01 s


class Look(NamedTuple):
    """What the clocks say: of the wall, of all cores' idling, and of this process on all cores, in seconds."""

    wall: float
    idle: float
    own: float


def look() -> Look:
    """Read the clocks."""
    cores = psutil.cpu_times()
    return Look(time.perf_counter(), cores.idle + getattr(cores, "iowait", 0.0), time.process_time())


class FreeCores:
    """
    Counts the cores that other programs left free since the last look.

    Every operation of a small model waits for the slowest of its threads, so that two threads on one free core are
    several times slower than one. The first look is at the making; no more are counted than torch had threads then.
    """

    def __init__(self) -> None:
        self.most = self.number = torch.get_num_threads()
        self.last = look()

    def count(self) -> int:
        """Look how many are free, 1 at least; too soon after the last look it is the number of then."""
        now = look()
        seconds = now.wall - self.last.wall
        if seconds >= SHORTEST:
            # What idled and what this process used was there to be used.
            free = (now.idle - self.last.idle + now.own - self.last.own) / seconds
            self.number = max(1, min(self.most, math.floor(free + 0.5)))
            self.last = now
        return self.number

    def take(self) -> None:
        """Give as many threads to torch for what comes next; call it before each batch."""
        torch.set_num_threads(self.count())


__all__ = ["FreeCores"]

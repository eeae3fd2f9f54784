"""Gives the model as many threads as the machine has cores that other programs leave free."""

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
    Chooses the number of torch's threads by what other programs left free since the last look.

    Every operation of a small model waits for the slowest of its threads, so that two threads on one free core are
    several times slower than one. The first look is at the making; no more threads are taken than torch had then.
    """

    def __init__(self) -> None:
        self.most = torch.get_num_threads()
        self.last = look()

    def take(self) -> None:
        """Set the number of threads for what comes next; call it before each batch."""
        now = look()
        seconds = now.wall - self.last.wall
        if seconds < SHORTEST:
            return
        # What idled and what this process used was there to be used.
        free = (now.idle - self.last.idle + now.own - self.last.own) / seconds
        torch.set_num_threads(max(1, min(self.most, math.floor(free + 0.5))))
        self.last = now


__all__ = ["FreeCores"]

"""How many threads the model gets beside other programs."""

import pytest
import torch

from processing_mac import free_cores_mac
from processing_mac.free_cores_mac import FreeCores, Look


@pytest.fixture(autouse=True)
def threads():
    """Four of them before, and as many as there were after a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("idle", "own", "expected"),
    [
        (36.0, 4.0, 4),  # four cores, nobody else
        (0.0, 40.0, 4),  # all four are this process's
        (0.0, 26.7, 3),  # another program had a core and a third of it
        (0.0, 14.0, 1),  # others had more than two and a half
        (0.0, 0.5, 1),  # others have it all: one at least
        (150.0, 10.0, 4),  # of sixteen cores no more than torch had
    ],
)
def test_what_others_leave(monkeypatch, idle, own, expected):
    looks = iter([Look(100.0, 50.0, 7.0), Look(110.0, 50.0 + idle, 7.0 + own)])
    monkeypatch.setattr(free_cores_mac, "look", lambda: next(looks))
    FreeCores().take()
    assert torch.get_num_threads() == expected


def test_comes_back_when_the_others_end(monkeypatch):
    """And a time that is too short for the system's clock changes nothing, but counts in the next."""
    looks = iter([Look(0.0, 0.0, 0.0), Look(1.0, 0.0, 1.0), Look(1.1, 0.0, 1.1), Look(2.0, 3.0, 2.0)])
    monkeypatch.setattr(free_cores_mac, "look", lambda: next(looks))
    cores = FreeCores()
    taken = []
    for _ in range(3):
        cores.take()
        taken.append(torch.get_num_threads())
    assert taken == [1, 1, 4]


def test_the_clocks_go_forward():
    first, second = free_cores_mac.look(), free_cores_mac.look()
    assert all(a <= b for a, b in zip(first, second, strict=True)) and first.idle > 0 and first.own > 0

"""Batches at a time: as many as are asked for, in order, each with one of torch's threads."""

import threading
from collections.abc import Iterator

import pytest
import torch

from processing_mac.captioning_mac import at_a_time


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Two of them before, and as many as there were after a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_two_at_a_time() -> None:
    """Each waits for one beside it; they come in order though the first of two ends last."""
    pair, second = threading.Barrier(2), [threading.Event() for _ in range(3)]

    def work(item: int) -> tuple[int, int]:
        pair.wait(timeout=20)
        if item % 2:
            second[item // 2].set()
        else:
            second[item // 2].wait(timeout=20)
        return item, torch.get_num_threads()

    assert list(at_a_time(lambda: 2, work, iter(range(6)))) == [(item, 1) for item in range(6)]
    assert torch.get_num_threads() == 2  # those of others stay theirs


def test_the_number_may_change() -> None:
    """Of three cores two are taken by others after a while."""
    counts = iter([3, 3, 3] + 20 * [1])
    lock, running, most = threading.Lock(), 0, []

    def work(item: int) -> int:
        nonlocal running
        with lock:
            running += 1
            most.append(running)
        threading.Event().wait(0.05)
        with lock:
            running -= 1
        return item

    assert list(at_a_time(lambda: next(counts), work, iter(range(8)))) == list(range(8))
    assert max(most) <= 3 and most[-3:] == [1, 1, 1]


def test_an_error_comes_through() -> None:
    def work(item: int) -> int:
        raise RuntimeError("the model failed")

    with pytest.raises(RuntimeError, match="the model failed"):
        list(at_a_time(lambda: 2, work, iter(range(4))))

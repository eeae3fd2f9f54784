"""Batches are of examples of like length, go on where they were stopped, and the rate rises and falls."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

from everyday_collages import Example
from everyday_speaker import batches, part_by_length, schedule


ROWS = 8  # of a window


def test_long_examples_are_fewer_in_a_batch() -> None:
    lengths = [ROWS] * 5 + [2 * ROWS] * 3 + [6 * ROWS] * 7
    drawn = [Example(torch.zeros(length, 1), "") for length in lengths]
    parts = part_by_length(drawn, 4, ROWS)
    assert [one for part in parts for one in part] == drawn
    assert [len(part) for part in parts] == [4, 4, 4, 3]  # of which the second has some of two windows
    assert len(part_by_length(drawn[8:], 32, ROWS)[0]) == 7
    assert [len(part) for part in part_by_length(drawn[8:] * 4, 16, ROWS)] == [5, 5, 5, 5, 5, 3]
    assert [len(part) for part in part_by_length(drawn[8:], 1, ROWS)] == [1] * 7


def test_batches_go_on_within_a_pool() -> None:
    class Numbers:
        rows = ROWS

        def draw(self, rng: np.random.Generator) -> Example:
            return Example(torch.zeros(ROWS * int(rng.integers(1, 7)), 1), str(rng.integers(1_000_000)))

    def texts(count: int, *place: int) -> list[list[str]]:
        drawn = batches(Numbers(), 4, 0, *place)
        return [[one.caption for one in next(drawn)[2]] for _ in range(count)]

    stream = batches(Numbers(), 4, 0)
    places = [next(stream)[:2] for _ in range(20)]
    assert places[-1][0] >= 1 and places[0] == (0, 1)
    assert texts(20)[12:] == texts(8, *places[11])
    assert len({text for part in texts(20) for text in part}) == sum(map(len, texts(20)))


def test_the_rate_rises_and_falls() -> None:
    rates = [schedule(step, share) for step, share in ((0, 0.0), (99, 0.0), (500, 0.5), (999, 1.0))]
    assert rates == pytest.approx([0.01, 1, 0.505, 0.01])

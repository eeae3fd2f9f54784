"""Rows of sounds and of padding are taken from as many encodings as are needed, and from no fewer."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import everyday_rows
from everyday_rows import Encoding, sample_rows


ROWS = 8  # of a window


def test_no_more_rows_are_sampled_than_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everyday_rows, "ENOUGH", 6)
    taken = []

    def encodings() -> Iterator[Encoding]:
        for number in range(9):
            taken.append(number)
            yield Encoding(torch.full((2 * ROWS, 4), number).half(), 5)

    rows, heard = sample_rows(encodings(), ROWS)
    assert taken == [0, 1, 2]  # two windows each
    assert rows[heard, 0].tolist() == [0, 1, 2] and rows[~heard, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_nobody_can_tell_what_padding_is_like_without_any() -> None:
    full = Encoding(torch.zeros(ROWS, 4).half(), ROWS)
    with pytest.raises(ValueError, match="No scene ends a second before its window does"):
        sample_rows([full, full], ROWS)

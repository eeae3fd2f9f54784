"""The longest common subsequence against the textbook's dynamic program."""

import random

from evaluation_mac.metrics.rouge import longest_common_subsequence


def textbook(first: list[str], second: list[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        above = row
        row = [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[place]))
    return row[-1]


def test_longest_common_subsequence():
    draw = random.Random(0)
    for _ in range(500):
        first, second = ([draw.choice("abcd") for _ in range(draw.randint(0, 70))] for _ in range(2))
        assert longest_common_subsequence(first, second) == textbook(first, second)

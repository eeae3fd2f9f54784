"""Scenes with scores of tags, for the tests of what is told of them and of collages."""

from pathlib import Path

import torch
from everyday_grammar import Grammar
from everyday_mixed import Scene


GRAMMAR = Grammar()
TAGS = GRAMMAR.tags
ROWS = 16  # of a window
HIGH, LOW, PAD = 4.0, -6.0, -9.0


def rows_of(kind: str, count: int) -> torch.Tensor:
    """Rows that say a kind and what it is part of, (rows, tags)."""
    scores = torch.full((count, len(TAGS)), LOW)
    scores[:, [TAGS.index(tag) for tag in GRAMMAR.tags_of(kind)]] = HIGH
    return scores


def scene_of(kinds: list[str], heard_as: list[str], relation: str) -> tuple[Scene, torch.Tensor, int]:
    """A scene of sounds of eight rows, which may be heard as others, and then padding."""
    events = [(kind, 1.28 * place, 1.28 * (place + 1)) for place, kind in enumerate(kinds)]
    heard = 8 * len(kinds)
    scores = torch.cat([rows_of(kind, 8) for kind in heard_as])
    if "dog" in kinds and "dog" not in heard_as:
        scores[:, TAGS.index("dog")] = LOW - 1  # behind all others
    padding = torch.full(((-heard - 8) % ROWS + 8, len(TAGS)), PAD)
    return Scene(Path("a.flac"), relation, events, [], 1), torch.cat([scores, padding]), heard

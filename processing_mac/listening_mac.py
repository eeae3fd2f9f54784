"""Endless audio and kept states: what was heard stays in a state of one size, which can be asked and saved."""

from collections.abc import Iterable
from typing import Any


def merge_equal(segments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join neighbouring segments (`start`, `end`, `caption`) that say the same and have no gap between them."""
    merged: list[dict[str, Any]] = []
    for segment in segments:
        if merged and merged[-1]["caption"] == segment["caption"] and merged[-1]["end"] >= segment["start"]:
            merged[-1] = merged[-1] | {"end": segment["end"]}
        else:
            merged.append(dict(segment))
    return merged


__all__ = ["merge_equal"]

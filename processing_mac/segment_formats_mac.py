"""Writes segments, the captions of a recording with their times, in the formats of subtitles."""

import html
from collections.abc import Sequence
from typing import Any

import pysubs2


FORMATS = ("srt", "vtt")


def format_segments(segments: Sequence[dict[str, Any]], format: str) -> str:
    """
    Write segments as the content of a file.

    Args:
        segments: Segments as the pipeline gives them: dicts of `start` and `end` in seconds and `caption`.
        format: One of `FORMATS`.

    Raises:
        ValueError: There is no such format.
    """
    if format not in FORMATS:
        raise ValueError(f"format {format!r}; expected one of {', '.join(FORMATS)}")
    subtitles = pysubs2.SSAFile()
    for segment in segments:
        start, end = (pysubs2.make_time(s=segment[name]) for name in ("start", "end"))
        text = " ".join(segment["caption"].split())  # an empty line would end the subtitle
        subtitles.append(pysubs2.SSAEvent(start, end, html.escape(text, quote=False) if format == "vtt" else text))
    return subtitles.to_string(format, keep_ssa_tags=True)  # so that words in braces are kept


__all__ = ["FORMATS", "format_segments"]

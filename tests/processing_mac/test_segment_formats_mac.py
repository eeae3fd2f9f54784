"""Segments as subtitles."""

import html

import pysubs2
import pytest

from processing_mac.segment_formats_mac import format_segments


SEGMENTS = [
    {"start": 0.0, "end": 10.24, "caption": "a dog barks, <i>twice</i> {or so}"},
    {"start": 10.24, "end": 3723.5, "caption": "rain falls"},
]


@pytest.mark.parametrize(("kind", "comma"), [("srt", ","), ("vtt", ".")])
def test_subtitles_are_read_back(kind, comma):
    text = format_segments(SEGMENTS, kind)
    assert f"00:10{comma}240 --> 01:02:03{comma}500" in text and text.startswith("WEBVTT" if kind == "vtt" else "1\n")
    events = pysubs2.SSAFile.from_string(text, format_=kind)
    assert [(event.start, event.end) for event in events] == [(0, 10_240), (10_240, 3_723_500)]
    written = text.split(f"10{comma}240\n")[1].split("\n")[0]
    assert (html.unescape(written) if kind == "vtt" else written) == SEGMENTS[0]["caption"]
    assert events[1].plaintext == "rain falls"


def test_no_segments_and_no_format():
    assert format_segments([], "srt").strip() == ""
    with pytest.raises(ValueError, match="'ass'; expected one of srt, vtt"):
        format_segments(SEGMENTS, "ass")

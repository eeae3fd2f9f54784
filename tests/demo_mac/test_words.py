"""What the page says: everything that a visitor or a model wrote stays text."""

import base64
import re

import pytest

from demo_mac.words import draw_ranking, list_live, offer_downloads, say, say_problem
from processing_mac.segment_files_mac import write_segments


EVIL = "<script>alert(1)</script>"
SEGMENTS = [{"start": 0.0, "end": 10.24, "caption": "a dog barks"}, {"start": 10.24, "end": 65.0, "caption": EVIL}]


@pytest.mark.parametrize(
    "written",
    [
        say(EVIL, EVIL),
        say_problem(EVIL),
        draw_ranking({EVIL: 1.0}),
        list_live(SEGMENTS),
        offer_downloads([], EVIL + '"'),
    ],
)
def test_text_runs_no_code(written):
    assert "<script" not in written


def test_the_downloads_are_those_of_the_command():
    links = re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)">(\w+)<', offer_downloads(SEGMENTS, "street.m4a"))
    assert [name for name, _, _ in links] == ["street.srt", "street.vtt", "street.csv", "street.txt"]
    for _, data, format in links:
        assert base64.b64decode(data).decode() == write_segments(SEGMENTS, format)


def test_the_likeliest_label_comes_first():
    rows = re.findall(r"<span>(.*?)</span> <b>(.*?)</b>", draw_ranking({"rain": 0.001, "a dog": 0.9, "a cat": 0.099}))
    assert rows == [("a dog", "90%"), ("a cat", "10%"), ("rain", "&lt; 1%")]


def test_what_is_heard_is_added_at_the_end():
    """A program that reads the screen aloud reads what is new in the region, and nothing before it may change."""
    assert re.findall(r"<time>(.*?)</time>", list_live(SEGMENTS)) == ["0:00–0:10", "0:10–1:05"]


def test_a_long_caption_is_written_smaller():
    assert 'class="said">' in say("a dog") and 'class="said long" tabindex="0">' in say("a dog; " * 20)

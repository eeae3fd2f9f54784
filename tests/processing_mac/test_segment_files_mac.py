"""Segments as tables, subtitles and labels: what others' readers make of them."""

import csv
import io
import json
from pathlib import Path

import pysubs2
import pytest

from processing_mac.segment_files_mac import FORMATS, SegmentFiles, SegmentText, format_of, write_segments


SEGMENTS = [
    {"start": 0.0, "end": 10.24, "caption": "rain, and a <loud> dog & cat"},
    {"start": 10.24, "end": 20.48, "caption": "wind\thowls"},
    {"start": 20.48, "end": 3671.5, "caption": "wind\thowls"},
]


def test_tables_hold_every_segment_once() -> None:
    for name, delimiter in (("csv", ","), ("tsv", "\t")):
        rows = list(csv.DictReader(io.StringIO(write_segments(SEGMENTS, name)), delimiter=delimiter))
        assert [row["caption"] for row in rows] == ["rain, and a <loud> dog & cat", "wind howls"]
        assert float(rows[1]["end"]) == 3671.5
    lines = write_segments(SEGMENTS, "jsonl", merge=False).splitlines()
    assert [json.loads(line)["start"] for line in lines] == [0.0, 10.24, 20.48]


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_subtitles_are_read_again(name: str) -> None:
    text = write_segments(SEGMENTS, name)
    events = pysubs2.SSAFile.from_string(text, format_=name)
    assert [(event.start, event.end) for event in events] == [(0, 10240), (10240, 3671500)]
    assert ("&lt;loud&gt; dog &amp; cat" if name == "vtt" else "<loud> dog & cat") in text


def test_labels_of_audacity_have_three_columns() -> None:
    rows = [line.split("\t") for line in write_segments(SEGMENTS, "audacity").splitlines()]
    assert rows[1] == ["10.240000", "3671.500000", "wind howls"]


def test_lines_to_read() -> None:
    lines = write_segments(SEGMENTS, "txt").splitlines()
    assert lines == ["0:00-0:10  rain, and a <loud> dog & cat", "0:10-1:01:12  wind howls"]


def test_formats_by_name_and_suffix() -> None:
    assert format_of(Path("a.SRT")) == "srt" and format_of(Path("a.docx")) is None
    with pytest.raises(ValueError, match="expected one of tsv"):
        write_segments(SEGMENTS, "docx")
    for name in FORMATS:
        write_segments([], name)


@pytest.mark.parametrize("format", FORMATS)
def test_segments_one_by_one_are_all_at_once(format: str) -> None:
    text = SegmentText(format)
    assert "".join(text.write([segment]) for segment in SEGMENTS) == write_segments(SEGMENTS, format, merge=False)


def test_several_recordings_get_a_file_each(tmp_path: Path) -> None:
    files = SegmentFiles(tmp_path / "out", "vtt", ["a/x.wav", "a/y.wav"])
    files.append({"audio": "a/y.wav", "segments": SEGMENTS})
    files.close()
    assert SegmentFiles(tmp_path / "out", "vtt", ["a/x.wav", "a/y.wav"]).done == {"a/y.wav"}
    assert (tmp_path / "out" / "y.wav.vtt").read_text().startswith("WEBVTT")
    (tmp_path / "out" / "x.wav.vtt").touch()  # as a run leaves it that was stopped
    assert SegmentFiles(tmp_path / "out", "vtt", ["a/x.wav", "a/y.wav"]).done == {"a/y.wav"}
    with pytest.raises(ValueError, match=r"x.wav.srt: would be written for"):
        SegmentFiles(tmp_path, "srt", ["a/x.wav", "b/x.wav"])
    SegmentFiles(tmp_path / "labels.txt", "audacity", ["a/x.wav"]).close()
    with pytest.raises(ValueError, match="ends as txt does, and --format says srt"):
        SegmentFiles(tmp_path / "labels.txt", "srt", ["a/x.wav"])
    with pytest.raises(ValueError, match="expected a folder"):
        SegmentFiles(tmp_path / "all.srt", "srt", ["a/x.wav", "a/y.wav"])

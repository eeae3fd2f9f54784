"""`mac-caption --stream` with an output or a format: what is written of the segments as they end."""

import csv
import json
import resource
from pathlib import Path

import pytest
import soundfile

from processing_mac import AudioCaptioningPipeline
from processing_mac.caption_file_mac import CaptionFile
from processing_mac.cli_mac import main
from processing_mac.segment_files_mac import FORMATS, TABLES, write_segments
from processing_mac.stream_cli_mac import FIELDS


@pytest.fixture
def command(model, processor, sound, tmp_path, monkeypatch):
    """Runs `mac-caption --stream day.wav` in a folder of its own."""
    AudioCaptioningPipeline(model, processor=processor, device="cpu").save_pretrained(tmp_path / "mac")
    monkeypatch.chdir(tmp_path)
    soundfile.write("day.wav", sound(13), 16_000)
    return lambda *arguments: main(["--stream", "day.wav", "--model", "mac", "--device", "cpu", *arguments])


def test_a_file_of_segments_grows_from_run_to_run(command, capsys) -> None:
    delimiters = {"day.csv": ",", "day.tsv": "\t"}
    for name in ("day.jsonl", *delimiters):
        assert command("--output", name) == command("--output", name) == 0
        with open(name, newline="") as file:
            tables = delimiters.get(name)
            rows = list(csv.DictReader(file, delimiter=tables)) if tables else [json.loads(line) for line in file]
        assert [list(row) for row in rows] == [["time", "start", "end", "caption"]] * len(rows)
        assert [float(row["end"]) for row in rows] == [10.24, 13, 10.24, 13]
    assert capsys.readouterr().out == ""


def test_two_writers_and_other_files_are_refused(command, capsys) -> None:
    Path("other.jsonl").write_text('{"audio": "a.wav", "caption": "A"}\n')
    first = CaptionFile(Path("day.jsonl"), fields=FIELDS)
    for name, told in [
        ("day.jsonl", "another run of this command writes to it"),
        ("other.jsonl", "holds something else"),
        ("day.doc", "expected a name that ends in .tsv, .csv"),
        ("s3://bucket/day.jsonl", "only --ray writes to"),
        ("none/day.csv", "No such file"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            command("--output", name)
        assert told in capsys.readouterr().err
    first.close()
    assert Path("day.jsonl").read_text() == ""


def test_a_full_disk_leaves_nothing_half_written(command, capsys) -> None:
    """The system stops a file at so many bytes, as a full disk does; a run that has room again goes on."""
    assert command("--output", "day.jsonl") == 0
    whole = Path("day.jsonl").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, before[1]))
    try:
        assert command("--output", "day.jsonl") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Path("day.jsonl").read_bytes() == whole
    assert "--output day.jsonl: cannot be written ([Errno 27]" in capsys.readouterr().err
    assert command("--output", "day.jsonl") == 0 and Path("day.jsonl").read_bytes().startswith(whole)


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in TABLES])
def test_subtitles_and_labels_are_those_of_a_file(command, format, capsys) -> None:
    """Printed or written, segment after segment, a stream has the text that its segments have together."""
    assert command("--format", "jsonl") == 0
    segments = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(segments) == 2
    expected = write_segments(segments, format)
    assert command("--format", format) == 0 and capsys.readouterr().out == expected
    suffix = "txt" if format == "audacity" else format
    for name, *options in ((f"day.{suffix}", "--format", format), ("day", "--format", format)):
        assert command("--output", name, *options) == 0 and Path(name).read_text() == expected
        with pytest.raises(SystemExit, match="2"):
            command("--output", name, *options)
        assert f"{name}: already there; {format} has the times of one run" in capsys.readouterr().err
        assert Path(name).read_text() == expected


def test_tables_are_printed_with_the_clock(command, capsys) -> None:
    for format, delimiter in (("csv", ","), ("tsv", "\t")):
        assert command("--format", format) == 0
        rows = list(csv.DictReader(capsys.readouterr().out.splitlines(), delimiter=delimiter))
        assert [list(row) for row in rows] == [["time", "start", "end", "caption"]] * 2
        assert [float(row["end"]) for row in rows] == [10.24, 13] and "T" in rows[0]["time"]


def test_a_format_and_another_suffix_are_refused(command, capsys) -> None:
    for format, name in (("srt", "day.csv"), ("csv", "day.srt"), ("jsonl", "day.tsv")):
        with pytest.raises(SystemExit, match="2"):
            command("--output", name, "--format", format)
        assert f"ends as {name[4:]} does, and --format says {format}" in capsys.readouterr().err
        assert not Path(name).exists()


def test_a_subtitle_is_whole_or_not_there(command, capsys) -> None:
    assert command("--output", "whole.srt") == 0
    whole = Path("whole.srt").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) - 3, before[1]))
    try:
        assert command("--output", "day.srt") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    first, _, _ = whole.partition(b"2\n00:00:10")
    assert Path("day.srt").read_bytes() == first
    told = capsys.readouterr().err
    assert "--output day.srt: cannot be written" in told and "the same command goes on" not in told

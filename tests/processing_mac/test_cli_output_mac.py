"""`mac-caption --output`: what it writes, and how it goes on where a run was stopped."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from command_files import read_jsonl

from processing_mac import AudioCaptioningPipeline
from processing_mac.caption_file_mac import CaptionFile
from processing_mac.cli_mac import caption_long
from processing_mac.segment_files_mac import SegmentFiles
from processing_mac.unfinished_mac import UnfinishedSegments


FILES = ["sounds/a/C.FLAC", "sounds/a/d.ogg", "sounds/b.wav"]


def test_jsonl(run, sounds, capsys, hear):
    assert run(sounds, "--output", "captions.jsonl", "--segments") == 0
    expected = [{"audio": file, **hear(file)} for file in FILES]
    assert read_jsonl("captions.jsonl") == expected
    printed = capsys.readouterr()
    assert printed.out == "" and "3/3" in printed.err


@pytest.mark.parametrize("segments", [False, True])
def test_csv(segments, run, sounds, hear):
    assert run(sounds, "--output", "captions.csv", *["--segments"] * segments) == 0
    with open("captions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    results = [hear(file) for file in FILES]
    assert [(row["audio"], row["caption"]) for row in rows] == [
        (file, result["caption"]) for file, result in zip(FILES, results, strict=True)
    ]
    if segments:
        assert [json.loads(row["segments"]) for row in rows] == [result["segments"] for result in results]
    else:
        assert list(rows[0]) == ["audio", "caption"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("cut", [0, 1, 7, 20])
def test_goes_on_where_it_was_killed(suffix, cut, run, sounds, monkeypatch):
    """`cut`: so many bytes of the second record were not written any more."""
    output = f"captions.{suffix}"
    assert run(sounds, "--output", output) == 0
    whole = Path(output).read_bytes()
    begin = whole.index(b"sounds/a/d.ogg")
    end = whole.index(b"\n", begin) + 1
    Path(output).write_bytes(whole[: end - cut])

    decoded = []
    load = AudioCaptioningPipeline.preprocess
    monkeypatch.setattr(
        AudioCaptioningPipeline, "preprocess", lambda *args, **kwargs: decoded.append(1) or load(*args, **kwargs)
    )
    assert run(sounds, "--output", output) == 0
    assert Path(output).read_bytes() == whole
    assert len(decoded) == (1 if cut == 0 else 2)


@pytest.mark.parametrize("written", [b"", b"aud", b"audio,caption\n"])
def test_goes_on_after_a_kill_at_the_very_start(written, run, sounds):
    Path("captions.csv").write_bytes(written)
    assert run(FILES[0], "--output", "captions.csv") == 0
    assert Path("captions.csv").read_text(encoding="utf-8").startswith("audio,caption\nsounds/a/C.FLAC,")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.jsonl", '{"name": "Anna"}\n'),
        ("captions.jsonl", "one line of somebody's notes"),
        ("captions.jsonl", '{"audio": "a.wav", "caption": "A"}\nnotes\n'),
        ("captions.csv", "one line of somebody's notes"),
        ("captions.csv", "audio,caption,segments\na.wav,A,[]\n"),  # written with --segments
        ("captions.csv", 'audio,caption\n"a.wav,A\n'),
        ("captions.jsonl", '{"audio": "a.wav", "caption": "A", "segments": []}\n'),  # written with --segments
        ("captions.jsonl", '{"audio": "a.wav", "text": "A"}\n'),
        ("captions.jsonl", '{"audio": "a.wav", "caption": "A"}\n[1]\n'),
    ],
)
def test_another_file_is_left_as_it_is(name, content, run, sounds, capsys):
    Path(name).write_text(content)
    with pytest.raises(SystemExit) as exit:
        run(sounds, "--output", name)
    assert exit.value.code == 2 and name in capsys.readouterr().err
    assert Path(name).read_text() == content


NAMES = ['comma, and "quote".wav', "two\nlines.wav", "two\r\nlines.wav", "Glück\u2028.wav", os.fsdecode(b"\xff.wav")]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_any_name_of_a_file_is_found_again(suffix, tmp_path):
    output = CaptionFile(tmp_path / f"captions{suffix}", with_segments=True)
    for name in NAMES:
        output.append({"audio": name, "caption": 'says "hello", twice', "segments": []})
    output.close()
    assert CaptionFile(output.path, with_segments=True).done == set(NAMES)


def test_a_full_disk_is_told_in_a_line(run, sounds, monkeypatch, capsys):
    def full(self, record):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CaptionFile, "append", full)
    assert run(sounds, "--output", "captions.csv") == 2
    errors = capsys.readouterr().err
    assert "--output captions.csv: cannot be written ([Errno 28] No space left" in errors and "usage:" not in errors


def test_a_second_run_does_not_write_between_the_lines_of_a_first(run, sounds, capsys):
    first = CaptionFile(Path("captions.jsonl"))
    with pytest.raises(SystemExit) as exit:
        run(sounds, "--output", "captions.jsonl")
    assert exit.value.code == 2 and "another run of this command writes to it" in capsys.readouterr().err
    first.close()
    assert run(sounds, "--output", "captions.jsonl") == 0 and len(read_jsonl("captions.jsonl")) == len(FILES)


def test_control_c_keeps_what_is_written(run, sounds, monkeypatch, capsys):
    append = CaptionFile.append

    def stop(self, record):
        append(self, record)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CaptionFile, "append", stop)
        assert run(sounds, "--output", "captions.jsonl") == 130
    assert "mac-caption: stopped. Captions written so far are kept" in capsys.readouterr().err
    assert [record["audio"] for record in read_jsonl("captions.jsonl")] == FILES[:1]
    assert run(sounds, "--output", "captions.jsonl") == 0
    assert [record["audio"] for record in read_jsonl("captions.jsonl")] == FILES


@pytest.mark.parametrize("output", ["night.srt", "night.jsonl"])
def test_a_long_recording_goes_on_where_it_was_stopped(output, run, sound, tmp_path, monkeypatch, capsys):
    """Six windows are captioned at a time: of the nine, the first six are not asked again."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("night.wav", sound(90), 16_000)
    assert run("night.wav", "--output", output) == 0
    expected = Path(output).read_bytes()
    Path(output).unlink()
    generate, asked = AudioCaptioningPipeline.generate, []

    def stop_after_the_first_part(self, features, counts, *rest):
        if asked:
            raise KeyboardInterrupt
        asked.append(len(counts))
        return generate(self, features, counts, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(AudioCaptioningPipeline, "generate", stop_after_the_first_part)
        assert run("night.wav", "--output", output) == 130
    assert "the same command goes on" in capsys.readouterr().err
    [unfinished] = Path().glob(f"{output}.*unfinished.jsonl")
    head, *segments = read_jsonl(str(unfinished))
    assert head["int8"] is False  # segments of rounded weights are others
    assert head["audio"] == "night.wav" and [segment["start"] for segment in segments] == [0, 10.24, 20.48, 30.72,
                                                                                           40.96, 51.2]  # fmt: skip
    with open(unfinished, "a") as file:
        file.write('{"start": 61.44, "end": 71.68, "caption": "of half a part"}\n{"sta')  # killed while it wrote
    monkeypatch.setattr(
        AudioCaptioningPipeline,
        "generate",
        lambda self, features, counts, *rest: asked.append(len(counts)) or generate(self, features, counts, *rest),
    )
    assert run("night.wav", "--output", output) == 0
    assert sum(asked) == 9 and Path(output).read_bytes() == expected and not unfinished.exists()


def test_what_was_heard_before_a_recording_breaks_off_is_printed(monkeypatch, capsys):
    """Also its first segment, which otherwise waits for the second one."""

    def caption(captioner, file, tell):
        tell({"start": 0.0, "end": 10.24, "caption": "a dog barks"})
        raise ValueError("it breaks off")

    monkeypatch.setattr("processing_mac.cli_mac.caption_long_file", caption)
    options = SimpleNamespace(segments=False, format=None)
    assert str(caption_long(None, "a.wav", None, options)) == "it breaks off"
    assert "a dog barks" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["night.srt", "night.jsonl"])
def test_what_breaks_off_half_way_leaves_nothing_behind(output, run, sound, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    samples = sound(90)
    samples[-1] = np.nan  # after all windows of the first part
    soundfile.write("night.wav", samples, 16_000, subtype="FLOAT")
    assert run("night.wav", "--output", output) == 1
    assert "night.wav: has NaN" in capsys.readouterr().err and not list(Path().glob("*unfinished*"))


@pytest.mark.parametrize("seconds", [3, 30])
def test_another_recording_leaves_what_is_unfinished(seconds, run, sound, tmp_path, monkeypatch):
    """A short or a long recording that came to the folder later is captioned first and has a file of its own."""
    monkeypatch.chdir(tmp_path)
    Path("nights").mkdir()
    soundfile.write("nights/z.wav", sound(90), 16_000)
    soundfile.write("nights/a.flac", sound(seconds), 16_000)
    output = CaptionFile(Path("nights.jsonl"))
    unfinished = output.unfinished("nights/z.wav")
    output.close()
    unfinished.write_text("of z.wav")
    append = CaptionFile.append

    def stop(self, record):
        append(self, record)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CaptionFile, "append", stop)
        run("nights", "--output", "nights.jsonl", "--batch-size", 1)
    assert [record["audio"] for record in read_jsonl("nights.jsonl")] == ["nights/a.flac"]
    assert run("nights/a.flac", "--output", "nights.jsonl") == 0
    assert unfinished.read_text() == "of z.wav"
    assert run("nights/z.wav", "--output", "nights.jsonl") == 0 and not unfinished.exists()


def test_another_recording_of_the_same_name_begins_anew(tmp_path):
    recording, path = tmp_path / "a.wav", tmp_path / "out"
    recording.write_bytes(b"one")
    UnfinishedSegments(path, str(recording), {"model": "a"}).append({"start": 0})
    assert UnfinishedSegments(path, str(recording), {"model": "a"}).segments == [{"start": 0}]
    assert UnfinishedSegments(path, str(recording), {"model": "b"}).segments == []
    UnfinishedSegments(path, str(recording), {"model": "a"}).append({"start": 0})
    recording.write_bytes(b"another")
    assert UnfinishedSegments(path, str(recording), {"model": "a"}).segments == []
    for _ in range(2):  # what a server or a pipe gives may be another recording each time
        unknown = UnfinishedSegments(path, "https://radio.test/live", {})
        assert unknown.segments == []
        unknown.append({"start": 0})


def test_what_is_there_already_is_said(run, sounds, capsys):
    """Such a file does not say of which recording it is, so that a run that leaves it must be seen to do so."""
    Path("o.srt").write_text("of another recording")
    assert run(FILES[1], "--output", "o.srt") == 0
    assert "mac-caption: o.srt: already there, left as it is\n" in capsys.readouterr().err
    assert Path("o.srt").read_text() == "of another recording"
    assert run(sounds, "--format", "srt", "--output", "subtitles") == 0
    assert "already there" not in capsys.readouterr().err
    assert run(sounds, "--format", "srt", "--output", "subtitles") == 0
    assert "subtitles/C.FLAC.srt and 2 more: already there, left as they are" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
def test_several_recordings_are_printed_as_one_table(format, run, sounds, capsys, hear):
    assert run(sounds, "--format", format) == 0
    text = capsys.readouterr().out
    if format == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = list(csv.DictReader(io.StringIO(text), delimiter="," if format == "csv" else "\t"))
    assert [row["audio"] for row in rows] == [FILES[0], *FILES]
    expected = [segment for file in FILES for segment in hear(file)["segments"]]
    assert [(float(row["start"]), row["caption"]) for row in rows] == [
        (segment["start"], segment["caption"]) for segment in expected
    ]
    assert run(FILES[1], "--format", format) == 0
    assert "audio" not in capsys.readouterr().out  # of one recording, whose name is known


def test_suffixes_may_be_in_capitals(run, sounds):
    for name in ("captions.JSONL", "captions.CSV"):
        assert run(sounds, "--output", name) == 0
    records = read_jsonl("captions.JSONL")
    with open("captions.CSV", newline="") as file:
        assert list(csv.DictReader(file)) == records and len(records) == 3


def test_two_runs_do_not_share_a_folder_of_subtitles(run, sounds, capsys):
    first = SegmentFiles(Path("subtitles"), "srt", FILES)
    with pytest.raises(SystemExit) as exit:
        run(sounds, "--format", "srt", "--output", "subtitles")
    assert exit.value.code == 2 and "another run of this command writes to it" in capsys.readouterr().err
    first.close()


@pytest.mark.parametrize(("target", "code", "message"), [("pipe", 141, "nobody reads"), ("/dev/full", 2, "No space")])
def test_output_that_takes_no_more(target, code, message, sounds, model_folder):
    what = ["sounds/b.wav"] if target == "pipe" else ["--stream", "sounds/b.wav"]
    command = [sys.executable, "-m", "processing_mac.cli_mac", *what, "--model", model_folder]
    if target == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(target, os.O_WRONLY)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writer)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr

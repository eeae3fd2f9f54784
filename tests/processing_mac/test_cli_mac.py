"""`mac-caption`: what it prints, what it writes, how it goes on after trouble."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from processing_mac import AudioCaptioningPipeline, cli_mac, load_captioner
from processing_mac.caption_file_mac import CaptionFile
from processing_mac.cli_mac import main
from processing_mac.segment_files_mac import SegmentFiles
from processing_mac.unfinished_mac import UnfinishedSegments


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


@pytest.fixture
def model_folder(captioner, tmp_path) -> str:
    """A released folder whose own code must not run."""
    captioner.save_pretrained(tmp_path / "mac")
    for code in (tmp_path / "mac").glob("*.py"):
        code.write_text("raise RuntimeError('this code must not run')")
    return str(tmp_path / "mac")


@pytest.fixture
def sounds(tmp_path, sound, monkeypatch) -> Path:
    """The working directory: three recordings in `sounds`, and things that are none."""
    for seed, name in enumerate(["b.wav", "a/C.FLAC", "a/d.ogg"], start=1):
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound(12 if seed == 2 else 3, seed), 16_000)
    (tmp_path / "sounds" / "notes.txt").write_text("no sound")
    (tmp_path / "sounds" / "folder.wav").mkdir()
    monkeypatch.chdir(tmp_path)
    return Path("sounds")


FILES = ["sounds/a/C.FLAC", "sounds/a/d.ogg", "sounds/b.wav"]


@pytest.fixture
def run(model_folder):
    """Runs the command on the CPU with that model."""
    return lambda *arguments: main([*map(str, arguments), "--model", model_folder, "--device", "cpu"])


def hear(captioner, file: str, **options) -> dict:
    """What the command says of a recording: of a long one, the captions of its segments, each once."""
    [record] = captioner(file, return_segments=True, **options)
    if record["segments"][1:]:
        record["caption"] = "; ".join(dict.fromkeys(segment["caption"] for segment in record["segments"]))
    return record


def read_jsonl(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_prints_paths_and_captions(run, sounds, captioner, capsys):
    assert run(sounds, "--batch-size", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line[0] != " "] == [
        f"{file}\t{hear(captioner, file)['caption']}" for file in FILES
    ]
    assert [line[:17] for line in lines[:2]] == [
        "    0.00-10.24 s\t",
        "    10.24-12.00 s",
    ]  # of the one long recording


def test_the_whole_of_a_recording_at_once(run, sounds, captioner, capsys):
    assert run(sounds, "--whole") == 0
    assert capsys.readouterr().out == "".join(f"{file}\t{captioner(file)[0]['caption']}\n" for file in FILES)


def test_a_model_of_long_recordings_hears_them_whole(model_folder, captioner, sounds, capsys):
    processor = captioner.processor
    processor.trained_windows = 2
    processor.save_pretrained(model_folder)
    assert main(["sounds", "--model", model_folder, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "".join(f"{file}\t{captioner(file)[0]['caption']}\n" for file in FILES)


def test_named_files_come_as_named_and_once(run, sounds, capsys):
    assert run("sounds/b.wav", sounds, "sounds/b.wav") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines if line[0] != " "] == [FILES[2], *FILES[:2]]


def test_a_blank_prompt_is_the_default(run, sounds, capsys):
    assert run(FILES[0]) == 0
    expected = capsys.readouterr().out
    for prompt in ("", "  "):
        assert run(FILES[0], "--prompt", prompt) == 0
        assert capsys.readouterr().out == expected


def test_a_model_that_says_nothing_is_reported(run, sounds, capsys, monkeypatch):
    monkeypatch.setattr(AudioCaptioningPipeline, "generate", lambda self, features, counts, *rest: [""] * len(counts))
    assert run(FILES[1], "--prompt", "Hi") == 0
    printed = capsys.readouterr()
    assert printed.out == f"{FILES[1]}\t\n" and f"{FILES[1]}: the model said nothing to this prompt" in printed.err


def test_segments_beams_and_prompt(run, sounds, captioner, capsys):
    assert run(FILES[0], "--segments", "--num-beams", 3, "--prompt", "Hi") == 0
    record = hear(captioner, FILES[0], num_beams=3, prompt="Hi")
    first, second = (segment["caption"] for segment in record["segments"])
    assert capsys.readouterr().out.splitlines() == [
        f"    0.00-10.24 s\t{first}",
        f"    10.24-12.00 s\t{second}",
        f"{FILES[0]}\t{record['caption']}",
    ]


def test_jsonl(run, sounds, captioner, capsys):
    assert run(sounds, "--output", "captions.jsonl", "--segments") == 0
    expected = [{"audio": file, **hear(captioner, file)} for file in FILES]
    assert read_jsonl("captions.jsonl") == expected
    printed = capsys.readouterr()
    assert printed.out == "" and "3/3" in printed.err


@pytest.mark.parametrize("segments", [False, True])
def test_csv(segments, run, sounds, captioner):
    assert run(sounds, "--output", "captions.csv", *["--segments"] * segments) == 0
    with open("captions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    results = [hear(captioner, file) for file in FILES]
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


def test_one_unreadable_file_does_not_stop_the_rest(run, sounds, captioner, capsys):
    Path("sounds/a/bad.wav").write_bytes(b"no sound at all")
    assert run(sounds, "gone.wav", "--output", "captions.jsonl", "--batch-size", 4) == 1
    assert [record["audio"] for record in read_jsonl("captions.jsonl")] == FILES
    errors = capsys.readouterr().err
    assert "mac-caption: sounds/a/bad.wav: cannot be read as audio" in errors
    assert "mac-caption: gone.wav: no such audio file" in errors
    assert run("gone.wav") == 1

    Path("sounds/a/bad.wav").write_bytes(Path("sounds/b.wav").read_bytes())
    assert run(sounds, "--output", "captions.jsonl") == 0  # mended, it is captioned
    assert [record["audio"] for record in read_jsonl("captions.jsonl")] == [*FILES, "sounds/a/bad.wav"]


def test_a_search_follows_links_and_says_what_it_leaves_out(run, sounds, capsys):
    Path("top").mkdir()
    Path("top/link").symlink_to("../sounds")
    Path("top/loop").symlink_to("..")
    Path("top/b.wave").write_bytes(Path("sounds/b.wav").read_bytes())
    Path("top/gone.wav").symlink_to("nowhere.wav")
    assert run("top", "--output", "captions.jsonl") == 1
    found = ["top/b.wave", *[name.replace("sounds", "top/link") for name in FILES]]
    assert sorted(record["audio"] for record in read_jsonl("captions.jsonl"))[:4] == sorted(found)[:4]
    errors = capsys.readouterr().err
    assert "top: left out" in errors and ".txt" in errors
    assert "mac-caption: top/gone.wav: a link to 'nowhere.wav', which is not there" in errors


def test_what_is_lost_of_a_recording_is_said(run, sounds, capsys):
    content = Path("sounds/b.wav").read_bytes()
    Path("cut.wav").write_bytes(content[: len(content) // 2])
    assert run("cut.wav") == 0
    assert "cut.wav: " in (errors := capsys.readouterr().err) and "of sound that it states are there (50%)" in errors


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", b"\xff.wav\t"), ("ascii", b"\\udcff.wav\t")])
def test_any_terminal_shows_any_name(encoding, shown, run, sounds, monkeypatch):
    name = os.fsdecode(b"\xff.wav")
    Path(name).write_bytes(Path("sounds/b.wav").read_bytes())
    terminal = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(terminal, encoding=encoding, write_through=True))
    assert run(name) == 0
    assert terminal.getvalue().startswith(shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sounds", "--model", "nowhere/at/all"], "--model nowhere/at/all is no folder, and as a Hub id"),
        (["sounds", "--model", "sounds"], "--model sounds cannot be loaded"),
        (["sounds", "--device", "cuda:99"], "cannot be loaded"),
        (["sounds/folder.wav"], "no audio in sounds/folder.wav"),
        (["sounds", "--output", "captions.docx"], "ends in .tsv, .csv, .jsonl, .srt, .vtt, .txt; or --format"),
        (["sounds", "--output", "captions.txt"], "is one file for 3 recordings; expected a folder"),
        (["sounds", "--output", "full.jsonl"], "full.jsonl: is a device or a pipe; expected a file"),
        (["sounds/b.wav", "--output", "full.srt"], "full.srt: is a device or a pipe; expected a file"),
        (["sounds", "--format", "srt"], "--output is needed for 3 recordings with --format srt: a folder"),
        (["sounds", "--threads", "0"], "argument --threads: expected a whole number above 0, not '0'"),
        (["sounds", "--output", "no/folder/captions.csv"], "No such file or directory"),
        (["sounds", "--batch-size", "0"], "--batch-size"),
        (["sounds", "--prompt", "<|audio|>"], "'<|audio|>' holds <|audio|>, which stands for the recording"),
        (["sounds", "--prompt", "Is <|audio|> like <|audio|>?"], "which stands for the recording"),
        ([], "expected recordings and folders, or --stream"),
        (["sounds", "--ray-actors", "2"], "--ray-actors: not read with recordings and folders without --ray"),
        (["sounds", "--shards", "jsonl", "--cut", "change"], "--cut, --shards: not read with recordings"),
        (["sounds", "--url-timeout", "3"], "--url-timeout: not read, since no recording is an address"),
        (["sounds", "--revision", "v1"], "--revision: not read, since --model is the folder"),
        (["sounds", "--whole", "--format", "audacity"], "--whole: not read, since what is heard in each window"),
        (
            ["sounds/b.wav", "--format", "srt", "--output", "b.jsonl"],
            "b.jsonl: ends as jsonl does, and --format says srt",
        ),
        (["sounds/b.wav", "--whole", "--output", "b.srt"], "--whole: not read, since what is heard in each window"),
        (["sounds", "--ray", "--whole", "--threads", "2"], "--whole, --threads: not read with --ray"),
        (["sounds", "--ray", "--reconnect"], "--reconnect: not read with --ray"),
        (["sounds", "--ray", "--output", "a.csv", "--shards", "jsonl"], "--shards: not read, since --output is no"),
        (["sounds", "--ray", "--output", "A.CSV", "--shards", "jsonl"], "--shards: not read, since --output is no"),
        (["--stream", "mic", "--reconnect"], "--reconnect: not read, since --stream mic is no address"),
        (["--stream", "-", "--whole", "--batch-size", "2"], "--whole, --batch-size: not read with --stream"),
        (["--stream", "-", "--format", "srt"], "--stream prints lines or, with --format jsonl, JSON"),
    ],
)
def test_wrong_use(arguments, message, sounds, model_folder, capsys):
    for name in ("full.jsonl", "full.srt"):  # what gives bytes without an end, behind a name like any other
        Path(name).symlink_to("/dev/full")
    if "--model" not in arguments:
        arguments = [*arguments, "--model", model_folder]
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and message in capsys.readouterr().err


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
def test_several_recordings_are_printed_as_one_table(format, run, sounds, captioner, capsys):
    assert run(sounds, "--format", format) == 0
    text = capsys.readouterr().out
    if format == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = list(csv.DictReader(io.StringIO(text), delimiter="," if format == "csv" else "\t"))
    assert [row["audio"] for row in rows] == [FILES[0], *FILES]
    expected = [segment for file in FILES for segment in hear(captioner, file)["segments"]]
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


def test_longer_recordings_are_counted_in_words(run, sounds, capsys):
    assert run(sounds, "--output", "captions.jsonl") == 0
    assert "mac-caption: 1 recording is longer than a window" in capsys.readouterr().err


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


def test_help_is_in_groups_with_examples(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert text.count("\n  mac-caption ") == 3
    assert all(f"\n{group}:\n" in text for group in ("what is written", "the model", "the machine"))


def test_threads_are_set(run, sounds):
    before = torch.get_num_threads()
    try:
        assert run(FILES[1], "--threads", 2) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("options", [["--int8"], []])
@pytest.mark.parametrize("folder", ["float", "int8"])
def test_weights_of_8_bits(model_folder, sounds, tmp_path, monkeypatch, capsys, folder, options):
    """Rounded from a float folder by `--int8`; a folder that holds 8 bits gives the same with and without it."""
    rounded = load_captioner(model_folder, device="cpu", int8=True)
    expected = rounded.model.state_dict()
    rounded.save_pretrained(tmp_path / "int8")
    loaded = []
    monkeypatch.setattr(
        cli_mac, "load_captioner", lambda *args, **kw: loaded.append(load_captioner(*args, **kw)) or loaded[0]
    )
    place = model_folder if folder == "float" else str(tmp_path / "int8")
    assert cli_mac.main([FILES[1], "--model", place, "--device", "cpu", *options]) == 0
    state = loaded[0].model.state_dict()
    assert {weight.dtype for weight in state.values()} == (
        {torch.float32} if folder == "float" and not options else {torch.float32, torch.int8}
    )
    if folder == "int8" or options:
        assert all(torch.equal(state[name], weight) for name, weight in expected.items())
        assert capsys.readouterr().out == f"{FILES[1]}\t{rounded(FILES[1])[0]['caption']}\n"


def test_free_cores_are_counted_while_it_captions_unless_threads_are_given(run, sounds, monkeypatch):
    counted = []
    monkeypatch.setattr(cli_mac.FreeCores, "count", lambda self: counted.append(self) or 1)
    assert run(*FILES[1:], "--batch-size", 1) == 0
    assert len(counted) >= 2 and len(set(counted)) == 1
    before = len(counted)
    assert run(FILES[1], "--threads", torch.get_num_threads()) == 0
    assert len(counted) == before

"""`mac-caption`: what it says of recordings, how it finds them, what it refuses."""

import io
import os
import threading
from pathlib import Path

import pytest
import torch
from command_files import read_jsonl

from processing_mac import AudioCaptioningPipeline, cli_mac, load_captioner
from processing_mac.cli_mac import main


CORES = os.cpu_count()
FILES = ["sounds/a/C.FLAC", "sounds/a/d.ogg", "sounds/b.wav"]


def test_prints_paths_and_captions(run, sounds, capsys, hear):
    assert run(sounds, "--batch-size", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line[0] != " "] == [f"{file}\t{hear(file)['caption']}" for file in FILES]
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


def test_segments_beams_and_prompt(run, sounds, capsys, hear):
    assert run(FILES[0], "--segments", "--num-beams", 3, "--prompt", "Hi") == 0
    record = hear(FILES[0], num_beams=3, prompt="Hi")
    first, second = (segment["caption"] for segment in record["segments"])
    assert capsys.readouterr().out.splitlines() == [
        f"    0.00-10.24 s\t{first}",
        f"    10.24-12.00 s\t{second}",
        f"{FILES[0]}\t{record['caption']}",
    ]


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
        (["sounds", "--device", "cuda:99"], "error: --device cuda:99: cannot compute here ("),
        (["sounds", "--device", "foo"], "error: --device foo: cannot compute here (Expected one of cpu, cuda"),
        (["sounds", "--device", "meta"], "error: --device meta: cannot compute here (Cannot copy out of meta"),
        (["sounds", "--device", "meta", "--ray"], "error: --device meta: cannot compute here ("),
        (["sounds/folder.wav"], "no audio in sounds/folder.wav"),
        (["sounds", "--output", "captions.docx"], "ends in .tsv, .csv, .jsonl, .srt, .vtt, .txt; or --format"),
        (["sounds", "--output", "captions.txt"], "is one file for 3 recordings; expected a folder"),
        (["sounds", "--output", "full.jsonl"], "full.jsonl: is a device or a pipe; expected a file"),
        (["sounds/b.wav", "--output", "full.srt"], "full.srt: is a device or a pipe; expected a file"),
        (["sounds", "--format", "srt"], "--output is needed for 3 recordings with --format srt: a folder"),
        (["sounds", "--threads", "0"], "argument --threads: expected a whole number above 0, not '0'"),
        (
            ["sounds", "--threads", "100000"],
            f"--threads: expected at most {8 * CORES}, 8 for each of {CORES} cores, not 100000",
        ),
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


def test_longer_recordings_are_counted_in_words(run, sounds, capsys):
    assert run(sounds, "--output", "captions.jsonl") == 0
    assert "mac-caption: 1 recording is longer than a window" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--segments"], ["--output", "captions.jsonl"]])
def test_a_short_recording_in_a_pipe_is_told_as_its_file_is(options, run, sounds, capsys):
    os.mkfifo("pipe")
    told = []
    for name in (FILES[1], "pipe"):
        writer = threading.Thread(target=lambda: Path("pipe").write_bytes(Path(FILES[1]).read_bytes()), daemon=True)
        if name == "pipe":
            writer.start()
        assert run(name, *options) == 0
        printed = capsys.readouterr()
        assert "longer than a window" not in printed.err
        told.append(printed.out.replace(name, "it"))
    assert told[0] == told[1]


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

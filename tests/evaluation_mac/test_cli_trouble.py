"""`mac-eval`: how it goes on after trouble, and what it refuses."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_files import ROWS, read_csv, write_manifest

from evaluation_mac.protocols.likelihood import score_by_likelihood


def test_goes_on_where_it_stopped(folder, monkeypatch, run):
    assert run("retrieval") == 0
    whole = Path("out/losses.csv").read_bytes()
    Path("out/losses.csv").write_bytes(whole[: whole.index(b"c.wav") + 20])
    asked = []

    def score(model, processor, file, texts, prompt):
        asked.append(file)
        return score_by_likelihood(model, processor, file, texts, prompt=prompt)

    monkeypatch.setattr("evaluation_mac.protocols.retrieval.score_by_likelihood", score)
    assert run("retrieval", "--dataset", "another name") == 0
    assert asked == ["c.wav"] and Path("out/losses.csv").read_bytes() == whole


@pytest.mark.parametrize("task", ["captioning", "retrieval"])
def test_one_unreadable_file_does_not_stop_the_rest(task, folder, capsys, run, refused):
    (folder / "b.wav").write_bytes(b"no sound at all")
    assert run(task) == 1
    assert "mac-eval: b.wav: cannot be read as audio" in capsys.readouterr().err
    assert [row["audio"] for row in read_csv("out/clips.csv")] == ["a.wav", "c.wav"]
    assert "b.wav" in json.loads(Path("out/results.json").read_text(encoding="utf-8"))["failed"]
    for name in ("a.wav", "c.wav"):
        (folder / name).unlink()
    Path("out").rename("old")
    assert "none of its 3 recordings can be read" in refused(task)


def test_without_matplotlib(folder, monkeypatch, capsys, run):
    monkeypatch.setattr("evaluation_mac.reports.plots.find_spec", lambda name: None)
    assert run("captioning") == 0
    assert "plots were skipped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("audio,source", [("a.wav", "dog")], "no column `caption`; it has audio, source"),
        ("audio,source,caption", [("a.wav", "dog", " ")], "line 2: no `caption`"),
        ("audio,caption,prompt", [("a.wav", "a dog", "What?"), ("a.wav", "a cat", "Who?")], "a.wav is there 2 times"),
        ("audio,caption", [], "holds no rows"),
    ],
)
def test_bad_manifests(header, rows, message, folder, refused):
    write_manifest(folder / "data.csv", rows, header)
    assert message in refused("captioning")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("classification", ["--by", "likelihood", "--num-beams", "2"], "--num-beams is about captions; leave it out"),
        ("classification", ["--by", "likelihood", "--batch-size", "2"], "--batch-size is about captions"),
        ("classification", ["--by", "likelihood", "--text-encoder", "x"], "--text-encoder is about captions"),
        ("captioning", ["--dataset-id", "user/x"], "--dataset-id is for --update-card"),
        ("retrieval", ["--batch-size", "2"], "unrecognized arguments: --batch-size 2"),
        ("intensity", ["--prompt", "What?"], "unrecognized arguments: --prompt"),
    ],
)
def test_options_that_nothing_would_read(task, options, message, folder, refused):
    assert message in refused(task, *options)
    assert not Path("out").exists()


def test_a_manifest_without_labels(folder, refused):
    write_manifest(folder / "data.csv", [("a.wav", "dog"), ("b.wav", " ; "), ("", "rain")], "audio,source")
    message = refused("classification")
    assert "line 3: no `source`; line 4: no `audio`" in message


def test_records_that_the_manifest_does_not_list(folder, refused):
    Path("out").mkdir()
    Path("out/captions.csv").write_text("audio,caption\nelsewhere.wav,a dog\n", encoding="utf-8")
    assert "holds elsewhere.wav, which the manifest does not list" in refused("captioning")


def test_results_of_something_else(folder, run, refused):
    assert run("captioning") == 0
    assert "other settings (num_beams)" in refused("captioning", "--num-beams", "2")
    write_manifest(folder / "data.csv", ROWS[:2])
    assert "other settings (manifest_sha256)" in refused("captioning")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["captioning", "--data", "nothing.csv"], "nothing.csv: no such manifest"),
        (["captioning", "--model", "nowhere"], "--model nowhere is no folder"),
        (["captioning", "--update-card", "--model", "."], "README.md: no such model card"),
        (["captioning", "--refine", "no/clap"], "the encoder no/clap cannot be loaded"),
        (["captioning", "--refine-from", "nbest"], "--refine-from says what --refine chooses from"),
        (["captioning", "--refine", "no/clap", "--num-beams", "3"], "--num-beams: --refine searches with 2 to 8"),
        (["classification", "--text-encoder", "no/encoder"], "the encoder no/encoder cannot"),
        (["classification", "--text-encoder", "no/encoder"], "`--by likelihood` needs no second model."),
    ],
)
def test_wrong_use(arguments, message, folder, refused):
    (folder / "README.md").unlink(missing_ok=True)
    assert message in refused(*arguments)


def test_a_missing_text_encoder_leaves_the_folder_for_another_way(folder, run, refused):
    refused("classification", "--text-encoder", "no/encoder")
    assert run("classification", "--by", "likelihood") == 0


def test_names_and_captions_of_any_letters(folder, captioner, run):
    os.rename("a.wav", "Glück, 犬.wav")
    write_manifest(folder / "data.csv", [("Glück, 犬.wav", "dog", "ein Hund bellt, 犬が吠える", "")])
    assert run("captioning") == 0
    [row] = read_csv("out/clips.csv")
    assert row["audio"] == "Glück, 犬.wav" and row["references"] == "ein Hund bellt, 犬が吠える"


def test_processes_that_do_not_know_of_each_other(folder, monkeypatch, refused):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "ACCELERATE_USE_CPU=true" in refused("captioning")
    assert not Path("out").exists()


@pytest.mark.slow
def test_two_processes_share_the_work(folder, run):
    assert run("captioning") == 0
    root = Path(__file__).parents[2]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "evaluation_mac.cli",
        "captioning", "--model", "mac", "--data", "data.csv", "--output", "two", "--batch-size", "1",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(root), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, timeout=300, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert read_csv("two/captions.csv") == read_csv("out/captions.csv")
    one, two = (json.loads(Path(name, "results.json").read_text("utf-8"))["scores"] for name in ("out", "two"))
    assert one == two


def test_a_full_disk_is_told_in_a_line(folder, monkeypatch, capsys, run):
    def full(path, settings, evaluation, failed):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("evaluation_mac.cli.write_report", full)
    with pytest.raises(SystemExit) as exit:
        run("captioning")
    assert exit.value.code == 2 and "the report cannot be written ([Errno 28]" in capsys.readouterr().err

"""All of the recipe of everyday sounds by one command; that its commands do what they should is tested beside it."""

import argparse
import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import make_everyday

from evaluation_mac.metrics.naming import NAMINGS
from training_mac.recipe.file import load_stages


RECIPES = Path(__file__).parents[2] / "recipes"


def listed(capsys: pytest.CaptureFixture[str], *more: str) -> list[list[str]]:
    make_everyday.main(["--esc50", "e", "--everyday", "d", "--teacher", "y.tflite", "--list", *more])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("cd ")
    return [shlex.split(line)[1:] for line in lines]


class Understood(Exception):
    """Raised where a command has understood its options."""


@pytest.mark.parametrize("trial", [(), ("--trial", "--bf16")])
def test_every_command_knows_its_options(trial, monkeypatch, capsys, tmp_path: Path) -> None:
    commands = listed(capsys, *trial)
    parse = argparse.ArgumentParser.parse_args

    def understand(parser: argparse.ArgumentParser, *args, **kwargs) -> argparse.Namespace:
        parse(parser, *args, **kwargs)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", understand)
    for script, *words in commands:
        if script == "-m":
            continue
        assert Path(script).parent == RECIPES
        with pytest.raises(Understood):
            importlib.import_module(Path(script).stem).main(words)
    assert {words[1] for words in commands if words[0] == "-m"} == {"training_mac.cli", "evaluation_mac.cli"}


@pytest.mark.parametrize("trial", [(), ("--trial",)])
def test_what_a_command_reads_was_made_before(trial, capsys) -> None:
    made: set[str] = set()
    for _, *words in listed(capsys, *trial):
        if words[0] == "training_mac.cli":
            stages = load_stages(words[1:])
            assert len(stages) == make_everyday.STAGES
            steps = {stage.training.max_steps for stage in stages}
            assert steps == {2} if trial else len(steps) > 1
            read = [path for stage in stages for path in stage.recipe.teacher_targets]
            read += [source["path"] for stage in stages for source in stage.data.train_data]
            folders = {str(Path(path).parent) for path in read}
            assert folders and folders <= made
            made.add(stages[0].settings["output_dir"])
            continue
        for word in words:
            if word.startswith("runs/") and word != words[-1]:
                folder = str(Path(word).parent) if word.endswith(".csv") else word
                assert folder in made, words
        made.add(words[words.index("--output") + 1] if "--output" in words else "")
    assert "runs/hardened" in made and "runs/results/plain" in made


def test_scenes_are_those_that_the_pages_name(capsys) -> None:
    mixed = {words[-1]: words for script, *words in listed(capsys) if "mix_everyday" in script}
    assert len(mixed) == 22

    for folder, scenes, seed, overlaps in (
        ("scenes-14", "1800", "14", None), ("told-50", "3500", "50", "0.42"), ("told-60", "3500", "60", "0.6"),
        ("minutes-1", "400", "101", None), ("long-51", "400", "151", None),
    ):  # fmt: skip
        words = mixed[f"runs/everyday/{folder}"]
        given = {name: words[words.index(name) + 1] for name in words if name.startswith("--")}
        assert (given["--scenes"], given["--seed"], given.get("--overlaps")) == (scenes, seed, overlaps)
        assert ("--teacher" in given) == (folder != "minutes-1")
        assert given.get("--seconds") == ("60" if folder in ("minutes-1", "long-51") else None)
        assert given.get("--strange") == ("0.05" if folder[0] in "tl" else None)


def test_each_part_goes_on_from_the_one_before(capsys) -> None:
    commands = {words[-1] if words[0] != "training_mac.cli" else "first": words for _, *words in listed(capsys)}

    def given(folder: str, option: str) -> str:
        return commands[folder][commands[folder].index(option) + 1]

    assert given("runs/heard", "--model") == "runs/mac-small" and given("runs/heard", "--steps") == "8573"
    assert given("runs/told", "--model") == "runs/heard" and given("runs/hardened", "--model") == "runs/told"
    assert given("runs/told", "--minutes") == "60" and given("runs/hardened", "--minutes") == "45"
    measured = [words for words in commands.values() if words[0] == "evaluation_mac.cli"]
    assert len(measured) == len(make_everyday.TABLES) == 9
    assert all("runs/hardened" in words for words in measured)
    assert {words[words.index("--naming") + 1] for words in measured} == set(NAMINGS)


def test_options_reach_the_commands(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with_bf16 = [" ".join(words) for words in listed(capsys, "--bf16") if "--bf16" in words]
    assert [one.split()[-1] for one in with_bf16] == ["runs/told", "runs/hardened"]
    esc50, everyday, *_ = listed(capsys, "--audio", "a", "b", "--folder", "elsewhere")
    assert esc50[esc50.index("--audio") + 1 :] == ["a", "--output", "runs/esc50"]
    assert everyday[everyday.index("--audio") + 1 :][:2] == ["a", "b"]
    assert esc50[esc50.index("--esc50") + 1] == str(tmp_path / "e")  # it runs in another folder
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    on_gpu = [script for script, *words in listed(capsys) if "--compile" in words]
    assert on_gpu == [make_everyday.script("hear_everyday")]


def test_missing_inputs_are_told_before_anything_is_run(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--esc50", "e", "--everyday", "d", "--teacher", "y.tflite"]
    for path, message in (
        ("e/audio", "--audio audio: e/audio is not there"),
        ("d/manifest.csv", "--everyday: d/manifest.csv is not there"),
        ("y.tflite", "--teacher: y.tflite is not there"),
    ):
        with pytest.raises(SystemExit):
            make_everyday.main(options)
        assert message in capsys.readouterr().err.splitlines()[-1]
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).mkdir() if path == "e/audio" else (tmp_path / path).touch()
    monkeypatch.setattr(make_everyday, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        make_everyday.main(options)
    assert "pip install ai-edge-litert" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_figures_are_told_a_line_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "results" / "voices"
    folder.mkdir(parents=True)
    scores = {"bleu_1": {"value": 0.5}, "naming_accuracy": {"value": 0.919}, "claimed_speech": {"value": 0.023}}
    (folder / "results.json").write_text(json.dumps({"scores": scores}))
    assert make_everyday.figures(tmp_path) == ["voices: naming_accuracy 91.9 %, claimed_speech 2.3 %"]

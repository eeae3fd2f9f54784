"""What is wrong with options, scenes, models and files is told in a line."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import everyday_speaker
import pytest
import tell_everyday
import torch
from made_scenes import TAGS, save_model, write

from modeling_mac import EatConfig
from training_mac.objectives.teacher_targets import TeacherTargets


def test_a_loss_that_is_no_number_is_told(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(everyday_speaker, "do_step", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(SystemExit):
        run("--steps", "2")
    assert "The loss is no number at step 2: try a lower --rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "--steps 0: expected more than 0"),
        (("--minutes", "-1"), "--minutes -1.0: expected more than 0"),
        (("--threads", "0"), "argument --threads: expected a whole number above 0, not '0'"),
        (("--seed", "-1"), "--seed -1: expected 0 or more"),
        (("--untaught", "nowhere"), "--untaught nowhere: no MAC is there; expected a folder of hear_everyday.py"),
        (("--model", "nowhere"), "--model nowhere: no MAC is there; expected a folder of hear_everyday.py"),
    ],
)
def test_what_is_typed_wrong_is_told_in_a_line(run: Callable[..., Path], arguments, message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err.splitlines()[-1]


EVENTS = {
    "json": "x",
    "pair": '[["dog", 1.0]]',
    "time": '[["dog", "a", 2]]',
    "number": "5",
    "nothing": "[]",
    "empty": "",
}


def spoil(folder: Path, what: str) -> None:
    """Spoil one thing about a folder of scenes."""
    with open(folder / "scenes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    targets = TeacherTargets.load(folder / "targets.safetensors")
    if what == "folder":
        (folder / "scenes.csv").unlink()
    elif what == "events":
        write(folder / "scenes.csv", [{"audio": row["audio"], "caption_1": "a dog"} for row in rows])
    elif what == "kind":
        write(folder / "scenes.csv", [row | {"events": '[["unicorn", 0.0, 1.0]]'} for row in rows])
    elif what == "scene":
        write(folder / "scenes.csv", [row | {"audio": "strange.flac"} for row in rows])
    elif what == "column":
        write(folder / "scenes.csv", [{name: row[name] for name in ("audio", "events")} for row in rows])
    elif what in EVENTS:
        write(folder / "scenes.csv", [row | {"relation": "single", "events": EVENTS[what]} for row in rows])
    elif what == "relation":
        write(folder / "scenes.csv", [row | {"relation": "beside", "events": '[["dog", 0, 1]]'} for row in rows])
    elif what == "rows":
        (folder / "scenes.csv").write_text("audio,relation,events\n")
    elif what == "targets":
        (folder / "targets.safetensors").unlink()
    elif what == "tags":
        targets.tags[0] = "unicorn"
    elif what == "groups":
        targets.groups[2] = []
    else:
        targets.groups = [[f"take-{number}" for number in range(60)]] * len(targets.files)
    if what in ("tags", "groups", "parts"):
        targets.save(folder / "targets.safetensors")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("folder", "scenes.csv"),
        ("events", "scenes.csv has no column `events`: mix it anew"),
        ("empty", "one-0.flac does not say which recordings it is of, and when: mix it anew"),
        ("kind", "one-0.flac: 'unicorn' is no kind of everyday_captions.yaml"),
        ("scene", "targets.safetensors has nothing of strange.flac: mix it anew"),
        ("rows", "scenes.csv has no scenes"),
        ("targets", "targets.safetensors: no such file; expected the targets of a teacher"),
        ("tags", "one: its tags are not those of everyday_captions.yaml: mix it anew"),
        ("groups", "one-2.flac does not say which recordings it is of: mix it anew"),
        ("parts", "All scenes share parts with some scene; expected recordings of more groups"),
        ("column", "scenes.csv has no column `relation`: mix it anew"),
        ("json", "one-0.flac: `events` is 'x'; expected a list of [kind, first second, end second]"),
        ("pair", "one-0.flac: `events` is '[[\"dog\", 1.0]]'; expected a list"),
        ("time", 'one-0.flac: `events` is \'[["dog", "a", 2]]\'; expected a list'),
        ("number", "one-0.flac: `events` is '5'; expected a list"),
        ("nothing", "scenes.csv, one-0.flac: `relation` is 'single' for a scene of 0: mix it anew"),
        ("relation", "one-0.flac: `relation` is 'beside' for a scene of 1: mix it anew"),
    ],
)
def test_wrong_scenes_are_told_in_a_line(
    run: Callable[..., Path], scenes: list[Path], what: str, message: str, capsys
) -> None:
    spoil(scenes[0], what)
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"connector_type": "time_major"}, "its `connector_type` is time_major; the scores of the tags are told from"),
        ({"connector_hidden_size": 20}, f"its connector has 20 units; the scores of {len(TAGS)} tags need as many"),
        ({"connector_hidden_size": 130}, f"its connector has other units than the scores of {len(TAGS)} tags"),
        ({"audio_config": {"window_frames": 64}}, "its windows have 4 rows of patches, those of --model 8"),
    ],
)
def test_wrong_models_are_told_in_a_line(
    run: Callable[..., Path], model: Path, make_config, tokenizer, fields: dict, message: str, capsys
) -> None:
    if "audio_config" in fields:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        fields = {"audio_config": EatConfig(**sizes, **fields["audio_config"])}
    save_model(model / "untaught", make_config, tokenizer, 1, **fields)
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert f"untaught: {message}" in capsys.readouterr().err.splitlines()[-1]


def test_a_finished_folder_and_a_broken_state_are_told(run: Callable[..., Path], tmp_path: Path, capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.pt").write_text("broken")
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "state.pt: cannot be read as a state of this command" in capsys.readouterr().err
    (tmp_path / "out" / "state.pt").unlink()
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "out is finished: name another --output" in capsys.readouterr().err


def test_other_scenes_than_before_are_told(
    run: Callable[..., Path], scenes: list[Path], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(tell_everyday, "train", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        run("--steps", "1")
    with open(scenes[0] / "scenes.csv", newline="") as file:
        write(scenes[0] / "scenes.csv", list(csv.DictReader(file))[1:])
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "state.pt is of a run with scenes of the digest" in capsys.readouterr().err


def test_another_model_than_before_is_told(
    run: Callable[..., Path], model: Path, make_config, tokenizer, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(tell_everyday, "train", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        run("--steps", "1")
    save_model(model / "untaught", make_config, tokenizer, 7)
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "state.pt is of a run with an encoder of --untaught of the digest" in capsys.readouterr().err


def test_broken_files_are_told_in_a_line(
    run: Callable[..., Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(tell_everyday, "train", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        run("--steps", "1")
    evidence = tmp_path / "out" / "state.rows" / "evidence.pt"
    evidence.write_text("broken")
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "evidence.pt: cannot be read as a state of this command; remove it" in capsys.readouterr().err
    evidence.unlink()
    with pytest.raises(SystemExit):  # of the encodings, which were removed, none is taken for one that is there
        run("--steps", "1")
    assert evidence.is_file()
    (model / "model.safetensors").write_text("broken")
    with pytest.raises(SystemExit):
        run("--steps", "1", "--output", str(tmp_path / "other"))
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {model}: " in line

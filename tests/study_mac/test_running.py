"""A study of 2 x 2 cells on toy data: run, killed and continued, with a cell that fails."""

import csv
import html
import json
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import soundfile
import yaml
from filelock import FileLock

from study_mac import running, scheduling
from study_mac.cli import main
from study_mac.running import finished
from study_mac.study_file import read_study


ROOT = Path(__file__).parents[2]
BASE = {
    "train_data": "clips.csv", "eval_data": "clips.csv", "max_windows": 1, "prompt": "Describe.", "vocab_size": 300,
    "model": {
        "audio_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
                         "window_frames": 512},
        "text_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_heads": 8, "head_dim": 8, "state_size": 16,
                        "n_groups": 1},
    },
    "per_device_train_batch_size": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 1, "use_cpu": True,
    "report_to": "none", "disable_tqdm": True,
}  # fmt: skip
AXES = {"connector": ["concat", "mean_pool"], "seed": [0, 1]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, with four recordings and a base recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = [("audio", "source", "caption")]
    for number in range(4):
        tone = np.sin(2 * np.pi * 300 * (number + 1) * np.arange(2 * 16_000) / 16_000)
        soundfile.write(f"{number}.wav", 0.1 * tone, 16_000)
        rows.append((f"{number}.wav", "siren", f"tone number {number}"))
    with open("clips.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    Path("base.yaml").write_text(yaml.safe_dump(BASE))
    return tmp_path


def write(name: str, **fields) -> str:
    study = {
        "base": "base.yaml",
        "output_dir": name,
        "axes": AXES,
        "evaluations": {name: {"task": name, "data": "clips.csv"} for name in ("captioning", "tokens")},
        "scores": {"CIDEr-D": "captioning.cider_d"},
        **fields,
    }  # fmt: skip
    Path(f"{name}.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return f"{name}.yaml"


def tables(name: str) -> dict[str, list]:
    """All tables without what clocks say."""
    read = {path.stem: json.loads(path.read_text()) for path in Path(name, "tables").glob("*.json")}
    for row in read["results"]:
        row.pop("training_hours")
    for row in read["runs"]:
        row.pop("training seconds")
    return read


@pytest.mark.slow
def test_a_study_that_is_killed_and_continued_gives_the_same_tables(folder) -> None:
    axes = {"connector": AXES["connector"]}
    whole, cut = write("whole", axes=axes), write("cut", axes=axes)
    assert main([whole]) == 0
    process = subprocess.Popen([sys.executable, "-m", "study_mac.cli", cut], start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    second = Path("cut/cells/connector=mean_pool/model/stage-1")
    while not list(second.glob("checkpoint-*")):  # in the middle of the second cell's training
        assert process.poll() is None
        time.sleep(0.02)
    trainings = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(trainings, timeout=20)
    assert trainings and not alive  # else two would train in one folder
    first = Path("cut/cells/connector=concat/cell.json")
    before = first.stat().st_mtime_ns
    assert main([cut]) == 0
    assert first.stat().st_mtime_ns == before  # a finished cell is never run again
    assert tables("cut") == tables("whole")
    assert {"results", "connector", "tokens"} <= tables("cut").keys()
    page = Path("cut/index.html").read_text()
    assert "2 of 2 cells" in page and "data:image/png;base64" in page and "http" not in page


def test_what_another_process_is_at_is_waited_for(folder, monkeypatch) -> None:
    study = read_study(Path(write("study")))
    cell, told, note = study.cells[0], [], study.cell_folder(study.cells[0]) / "cell.json"
    monkeypatch.setattr(running, "train_and_evaluate", Mock(side_effect=AssertionError("trained twice")))
    note.parent.mkdir(parents=True)

    def finish(stage: str) -> None:
        """What the other process does, which ends while this one waits."""
        told.append(stage)
        note.write_text(json.dumps({"recipe": study.recipe_of(cell), "evaluations": study.evaluations}))
        other.release()

    other = FileLock(note.parent / "lock")
    other.acquire()
    assert running.run_cell(study, cell, tell=finish) == json.loads(note.read_text())
    assert told == ["waiting for another process that is at it"]
    FileLock(note.parent / "lock").acquire(blocking=False).lock.release()  # it is free again


def test_a_score_that_no_evaluation_gives_is_told_after_the_first_cell(folder, monkeypatch, capsys) -> None:
    """And the others go on: some scores are of some cells alone, such as those of a deeper encoder's last block."""
    study = read_study(Path(write("study", scores={"CIDEr-D": "captioning.ciderd"})))
    ran: list[str] = []
    results = {"evaluations": {"captioning": {"results": {"scores": {"cider_d": {"value": 1.0}}}}}}
    monkeypatch.setattr(scheduling, "run_cell", lambda study, cell, *others: ran.append(cell.name))
    monkeypatch.setattr(scheduling, "read_results", lambda study: {study.cells[0]: results})
    assert scheduling.run_here(study, study.cells, "") == {} and len(ran) == len(study.cells) == 4
    assert capsys.readouterr().err.count("captioning has no score 'ciderd'; it has cider_d") == 1


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
def test_tasks_of_ray_and_launched_trainings_give_the_same_tables(folder, capsys) -> None:
    axes = {"connector": ["concat"], "seed": [0, 1]}
    evaluations = {"captioning": {"task": "captioning", "data": "clips.csv"}}
    for name in ("plain", "tasks"):
        write(name, axes=axes, evaluations=evaluations)
    write("launched", axes=axes | {"seed": [0]}, evaluations=evaluations)
    assert main(["plain.yaml"]) == main(["tasks.yaml", "--ray"]) == 0
    launch = f"{sys.executable} -m accelerate.commands.launch --cpu --num_processes 1 --num_machines 1"
    assert main(["launched.yaml", "--launch", launch]) == 0
    assert tables("tasks") == tables("plain")
    assert tables("launched")["runs"] == tables("plain")["runs"][:1]
    assert "[2/2]" in capsys.readouterr().out
    assert "accelerate.commands.launch" in Path("launched/cells/connector=concat,seed=0/log.txt").read_text()


@pytest.mark.slow
def test_a_cell_that_fails_is_told_and_the_others_go_on(folder, capsys) -> None:
    axes = {"connector": {"good": {}, "bad": {"model.connector_type": "none"}}}
    assert main([write("study", axes=axes)]) == 1
    printed = capsys.readouterr()
    assert "connector=bad: FAILED" in printed.out and "none" in printed.err
    assert "[1/2] connector=good: training" in printed.out
    assert [row["connector"] for row in tables("study")["results"]] == ["good"]
    reason = Path("study/cells/connector=bad/failed.txt").read_text().strip()
    assert "none" in reason
    assert main(["study.yaml", "--report-only"]) == 0  # which knows of it, too
    assert f"connector=bad: {html.escape(reason)}" in Path("study/index.html").read_text()


@pytest.mark.slow
def test_an_encoder_is_exchanged(folder) -> None:
    axes = {"size": {"s": {}, "l": {"model.text_config.num_hidden_layers": 2}},
            "encoder_from": {"own": None, "s": {"size": "s"}}}  # fmt: skip
    study = write("study", axes=axes, cells=[{"size": "l", "encoder_from": "s"}], evaluations={
        "captioning": {"task": "captioning", "data": "clips.csv"}}, grid_axes=["size"])  # fmt: skip
    assert main([study]) == 0
    rows = tables("study")["exchange"]
    assert rows[0]["trained with"] == "s"
    used = [name for name in rows[0] if f"{name} min" in rows[0]]
    assert used == ["s", "l"]  # in the order of the axis, not of the alphabet


def test_a_dry_run_counts(folder, capsys) -> None:
    assert main([write("study", hardware={"1 x H100": 346}), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "[4/4] connector=mean_pool,seed=1" in printed and "; 16 audio tokens" in printed
    assert "4 steps" in printed and "min on 1 x H100" in printed and "min on this machine" in printed
    assert not Path("study").exists()


@pytest.mark.parametrize(
    ("batch", "accumulated", "drops", "steps"),
    [(8, 1, False, 2), (3, 1, False, 4), (3, 1, True, 2), (1, 3, False, 4), (16, 1, True, 2)],
)
def test_steps_are_counted_as_the_trainer_does(folder, capsys, batch, accumulated, drops, steps) -> None:
    """Four clips, two epochs."""
    fields = {"max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": batch,
              "gradient_accumulation_steps": accumulated, "dataloader_drop_last": drops}  # fmt: skip
    assert main([write("study", set=fields, axes={"connector": ["concat"]}), "--dry-run"]) == 0
    assert f"; {steps} steps;" in capsys.readouterr().out


def test_what_a_user_typed_is_told_in_a_line(folder, capsys) -> None:
    for arguments in (["none.yaml"], [write("study"), "--only", "size=1"], [write("study"), "--shard", "3/2"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2 and "mac-study: error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [({"data": "none.csv"}, "none.csv"), ({"data": "clips.csv", "naming": "none"}, "invalid choice: 'none'"),
     ({"data": "clips.csv", "namming": "esc50"}, "--namming")],
)  # fmt: skip
def test_an_evaluation_that_cannot_be_is_told_before_any_training(folder, capsys, options, message) -> None:
    with pytest.raises(SystemExit) as ended:
        main([write("study", evaluations={"captioning": {"task": "captioning", **options}})])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "`evaluations.captioning`" in told and message in told
    assert not Path("study").exists()


def test_ctrl_c_is_told_in_a_line(folder, capsys, monkeypatch) -> None:
    monkeypatch.setattr("study_mac.cli.run_here", Mock(side_effect=KeyboardInterrupt))
    assert main([write("study")]) == 130
    assert "goes on where it was" in capsys.readouterr().err


def test_a_folder_of_another_recipe_is_no_result_and_is_told(folder, capsys) -> None:
    study = read_study(Path(write("study")))
    cell = study.cell_folder(study.cells[0])
    cell.mkdir(parents=True)
    note = {"recipe": study.recipe_of(study.cells[0]), "evaluations": study.evaluations}
    (cell / "cell.json").write_text(json.dumps(note))
    assert finished(study, study.cells[0])
    other = {**study.evaluations, "tokens": {"task": "tokens", "data": "clips.csv", "clips": 2}}
    assert finished(replace(study, evaluations=other), study.cells[0]) is None  # the evaluation is made again
    (cell / "cell.json").write_text(json.dumps({**note, "recipe": {}}))
    assert main(["study.yaml", "--report-only"]) == 0  # the other cells are shown all the same
    assert f"{cell} holds a model of another recipe" in html.unescape(Path("study/index.html").read_text())


def test_a_field_that_does_not_exist_is_told_by_the_dry_run(folder, capsys) -> None:
    axes = {"size": {"s": {}, "l": {"model.text_config.num_hiden_layers": 2}}}
    with pytest.raises(SystemExit) as ended:
        main([write("study", axes=axes), "--dry-run"])
    assert ended.value.code == 2 and "'num_hiden_layers'" in capsys.readouterr().err


def test_a_connector_that_does_not_exist_is_told_in_a_line(folder, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main([write("study", axes={"connector": ["concat", "nonsense"]}), "--dry-run"])
    assert ended.value.code == 2 and "'nonsense'" in capsys.readouterr().err

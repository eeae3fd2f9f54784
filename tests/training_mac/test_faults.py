"""A run that is killed, runs out of disk or meets NaN loses nothing and says what happened."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from training_mac.loop.checkpoints import is_whole, last_whole_checkpoint, mark_whole, remove_partial_checkpoints
from training_mac.loop.nan_guard import NanGuard
from training_mac.loop.trainer import MacTrainer
from training_mac.recipe.file import load_stages
from training_mac.run.folder import Run


# train.py in a process that kills itself at the nth call of a function: in the middle of whatever that does.
KILLED = """
import os, runpy, signal, sys
import {module} as module
original, left = module.{name}, [{calls}]
def killing(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
module.{name} = killing
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""

STAGES = [
    {"objective": "tags", "kept_patches": 32, "max_steps": 2, "per_device_train_batch_size": 2},
    {"encoder": "frozen", "max_steps": 6, "overlay_probability": 0.5, "eval_strategy": "steps", "eval_steps": 2},
]


@pytest.fixture
def recipe(write_recipe) -> Path:
    """Two stages with a checkpoint every second step and randomness of every kind."""
    model = {
        "audio_config": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "window_frames": 512, "drop_path_rate": 0.2,
        },
        "text_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_heads": 8, "head_dim": 8, "state_size": 16,
                        "n_groups": 1, "initializer_range": 0.02},
    }  # fmt: skip
    return write_recipe(stages=STAGES, model=model, save_strategy="steps", save_steps=2, save_total_limit=1,
                        per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=6)  # fmt: skip


def test_a_killed_run_ends_with_the_same_bits(recipe, train, in_process, tmp_path, weights_after) -> None:
    straight = train(recipe, "--output_dir", str(tmp_path / "straight"))
    command = [str(recipe), "--output_dir", str(tmp_path / "killed")]
    killed = tmp_path / "killed"
    # First while the second stage's second checkpoint is half written: its weights are there, its list is not.
    # (Marks before it: two results and checkpoints of stage 1, the first checkpoint of stage 2.)
    first = in_process("-c", KILLED.format(module="training_mac.loop.trainer", name="mark_whole", calls=3), *command)
    assert first.returncode == -9, first.stderr
    assert not is_whole(killed / "stage-2" / "checkpoint-4") and is_whole(killed / "stage-2" / "checkpoint-2")
    assert (killed / "stage-2" / "checkpoint-4" / "model.safetensors").exists()
    # Then between the last checkpoint and the stage's result; evaluation and the last step must not run again.
    second = in_process("-c", KILLED.format(module="training_mac.run.folder", name="save_file", calls=1), *command)
    assert second.returncode == -9, second.stderr
    assert "Stage 1 is finished already" in second.stdout and "checkpoint-4 is not whole" in second.stdout
    assert last_whole_checkpoint(killed / "stage-2").name == "checkpoint-6"
    train(recipe, "--output_dir", str(killed))
    for stage in (1, 2):
        expected, resumed = weights_after(straight, stage), weights_after(killed, stage)
        assert expected.keys() == resumed.keys()
        assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    expected, resumed = (load_file(folder / "model.safetensors") for folder in (straight, killed))
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    history = json.loads((killed / "stage-2" / "trainer_state.json").read_text())["log_history"]
    elapsed = [entry["elapsed"] for entry in history if "elapsed" in entry]
    assert len(elapsed) > 1 and elapsed == sorted(elapsed)  # the time goes on, too


def test_an_adapters_run_resumes_too(base, write_recipe, train, tmp_path, weights_after) -> None:
    """peft marks what it loads as learning: the LoRA that this stage leaves alone must stay."""
    recipe = write_recipe(
        base_model=str(base), encoder="full", language_model="lora", lora_dropout=0.1, save_strategy="steps",
        save_steps=1, stages=[{"language_model": "frozen", "max_steps": 3}, {"encoder": "frozen"}],
    )  # fmt: skip
    straight = train(recipe, "--output_dir", str(tmp_path / "straight"))
    resumed = tmp_path / "resumed"
    shutil.copytree(straight, resumed)
    shutil.rmtree(resumed / "stage-2")
    shutil.rmtree(resumed / "stage-1" / "result")
    shutil.rmtree(resumed / "stage-1" / "checkpoint-3")
    train(recipe, "--output_dir", str(resumed))
    for stage in (1, 2):
        expected, found = weights_after(straight, stage), weights_after(resumed, stage)
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_is_whole_or_does_not_count(tmp_path: Path) -> None:
    for step in (9, 10, 11):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"12345")
        mark_whole(folder)
    assert last_whole_checkpoint(tmp_path).name == "checkpoint-11"
    (tmp_path / "checkpoint-11" / "model.safetensors").write_bytes(b"123")  # cut short
    (tmp_path / "checkpoint-10" / "model.safetensors").unlink()  # deleted half way
    assert last_whole_checkpoint(tmp_path).name == "checkpoint-9"
    remove_partial_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-9"]
    assert last_whole_checkpoint(tmp_path / "nothing") is None


FULL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # bytes a file
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


def test_a_full_disk_is_named_and_costs_no_checkpoint(base, write_recipe, train, in_process) -> None:
    recipe = write_recipe(base_model=str(base), save_strategy="steps", save_steps=1, max_steps=2)
    folder = train(recipe)
    for later in ("checkpoint-2", "result"):
        shutil.rmtree(folder / "stage-1" / later)
    result = in_process("-c", FULL_DISK, str(recipe))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    message = result.stderr.strip().splitlines()[-1]
    assert "could not be written and was removed" in message and "make room" in message
    assert [path.name for path in (folder / "stage-1").iterdir() if path.is_dir()] == ["checkpoint-1"]
    assert is_whole(folder / "stage-1" / "checkpoint-1")


def poisoned(scene_class, rows: int = 4):
    """A stand-in for the training set's method: the features of one file are NaN."""
    original = scene_class.__getitem__

    def item(self, row):
        example = original(self, row)
        if row == 2:
            example["input_features"] = example["input_features"] * float("nan")
        return example

    return item


def test_nan_changes_no_weight_and_names_its_files(base, write_recipe, train, monkeypatch, capsys) -> None:
    from training_mac.examples.training_set import TrainingSet

    monkeypatch.setattr(TrainingSet, "__getitem__", poisoned(TrainingSet))
    fields = {"base_model": str(base), "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    folder = train(write_recipe(**fields, max_steps=4))
    assert "Left out a step without a finite gradient; it learnt from: " in capsys.readouterr().out
    weights = load_file(folder / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    recipe = write_recipe(**fields, max_steps=4, max_nan_steps=1, output_dir=str(folder.parent / "other"))
    with pytest.raises(FloatingPointError, match=r"learnt from: [^,]*2\.wav\. No weight was changed"):
        train(recipe)


def test_the_guard_counts_steps_in_a_row() -> None:
    guard, model = NanGuard(2), torch.nn.Linear(1, 1)
    for norm in (float("nan"), 1.0, float("inf")):
        model.weight.grad = torch.ones(1, 1)
        guard.observe(torch.tensor(1.0), ["a.wav"])
        guard.check(model, norm)
        assert (model.weight.grad is None) == (norm != 1.0)
    guard.observe(torch.tensor(float("nan")), ["b.wav"])
    with pytest.raises(FloatingPointError, match=r"2 steps in a row; the last one learnt from: b.wav\."):
        guard.check(model, torch.tensor(float("nan")))


def test_another_run_in_the_folder_is_refused(base, write_recipe, train) -> None:
    recipe = write_recipe(base_model=str(base), max_steps=1)
    folder = train(recipe)
    settings = json.loads((folder / "run.json").read_text())
    assert settings[0]["max_steps"] == 1
    train(recipe, "--logging_steps", "5")  # what touches no weight may change
    with pytest.raises(ValueError, match=r"stage 1 has learning_rate: 0.003; this one has 0.1. .* --output_dir"):
        Run(load_stages([str(recipe), "--learning_rate", "0.1"]))
    recipe.write_text(recipe.read_text() + "\nstages: [{}, {}]\n")
    with pytest.raises(ValueError, match="a run of 1 stages, not of 2"):
        Run(load_stages([str(recipe)]))


def test_missing_data_is_named_before_anything_is_written(base, write_recipe, train, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.csv: no such manifest"):
        train(write_recipe(base_model=str(base), train_data=str(tmp_path / "nowhere.csv")))
    manifest = tmp_path / "odd.csv"
    manifest.write_text("file,text\na.wav,a dog barks\n")
    with pytest.raises(ValueError, match=r"odd.csv: no column `audio`"):
        train(write_recipe(base_model=str(base), train_data=str(manifest)))
    manifest.write_text("audio,caption\na.wav,a dog barks\n")
    with pytest.raises(ValueError, match=r"no audio folder .*folder"):
        train(write_recipe(base_model=str(base), train_data=str(manifest), audio_root=str(tmp_path / "folder")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataloader_persistent_workers": True, "dataloader_num_workers": 1}, "`dataloader_persistent_workers`"),
        ({"early_stopping_patience": 1}, "needs `metric_for_best_model`"),
        ({"eval_strategy": "epoch", "eval_data": None}, "no data to validate on"),
        ({"base_model": None, "base_audio_tower": "eat"}, "go together"),
        (
            {"eval_strategy": "epoch", "eval_metrics": ["blue"]},
            "`eval_metrics`: no blue; possible are bleu, rouge_l, ",
        ),
    ],
)
def test_what_cannot_work_is_refused(base, write_recipe, train, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(write_recipe(**{"base_model": str(base), **fields}))


@pytest.mark.parametrize("workers", [0, 1])
def test_audio_that_goes_bad_is_told_in_a_line(base, write_recipe, in_process, manifest, tmp_path, workers) -> None:
    """Only a sample is looked at before; the third recording is found out by the training."""
    shutil.copytree(manifest.parent, tmp_path / "sounds")
    (tmp_path / "sounds" / "2.wav").write_bytes(b"noise")
    recipe = write_recipe(
        base_model=str(base), train_data=str(tmp_path / "sounds" / manifest.name), check_samples=2,
        dataloader_num_workers=workers,
    )  # fmt: skip
    ended = in_process("train.py", recipe)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("mac-train: ") and "2.wav: cannot be read" in last and "`skip_bad_audio: true`" in last


def test_overflows_of_a_loss_that_is_scaled_are_no_nan_steps() -> None:
    """fp16 begins with a scale of 65536, and finds a good one by a few steps that overflow."""
    guard, model = NanGuard(2), torch.nn.Linear(1, 1)
    for _ in range(5):
        model.weight.grad = torch.ones(1, 1)
        guard.observe(torch.tensor(1.0), ["a.wav"])
        guard.check(model, float("inf"), scaled=True)
        assert model.weight.grad is not None and guard.bad_steps == 0  # the scaler itself leaves the step out
    guard.observe(torch.tensor(float("nan")), ["b.wav"])
    guard.check(model, float("nan"), scaled=True)
    with pytest.raises(FloatingPointError, match=r"2 steps in a row; the last one learnt from: c.wav\."):
        guard.observe(torch.tensor(1.0), ["c.wav"])
        guard.check(model, float("inf"), scaled=False)


@pytest.mark.parametrize(("fp16", "scale", "deepspeed", "scaled"), [
    (True, 2.0**16, False, True), (True, 1.0, False, False), (True, None, True, True), (False, None, False, False),
])  # fmt: skip
def test_a_scale_of_one_can_go_no_lower(fp16, scale, deepspeed, scaled) -> None:
    scaler = None if scale is None else SimpleNamespace(get_scale=lambda: scale)
    trainer = SimpleNamespace(
        args=SimpleNamespace(fp16=fp16), is_deepspeed_enabled=deepspeed, accelerator=SimpleNamespace(scaler=scaler)
    )
    assert MacTrainer.scales_loss.fget(trainer) is scaled

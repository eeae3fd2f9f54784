"""The loop: what leaves the losses alone leaves them alone, and what should choose a model does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from modeling_mac import ssd_mac
from training_mac.examples.training_set import TrainingSet
from training_mac.loop.sampling import EpochSampler
from training_mac.loop.throughput import Throughput


def losses(folder: Path) -> list[float]:
    [state] = folder.glob("stage-1/checkpoint-*/trainer_state.json")
    return [entry["loss"] for entry in json.loads(state.read_text())["log_history"] if "loss" in entry]


VARIANTS = {
    "packed": {"packing": True},
    "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "checkpointed": {"activation_checkpointing": True},
    "workers": {"dataloader_num_workers": 2},
}


def test_the_losses_stay_what_they_are(base, write_recipe, train, tmp_path) -> None:
    """One test for all variants: however tests are dealt out, each is held against the plain run."""
    fields = {"max_steps": 4, "save_strategy": "steps", "save_steps": 4, "overlay_probability": 0.5, "loss_on": "all"}

    def run(name: str, **variant: Any) -> list[float]:
        return losses(train(write_recipe(base_model=str(base), output_dir=str(tmp_path / name), **fields, **variant)))

    plain = run("plain")
    assert len(plain) == len(set(plain)) == 4
    for name, variant in VARIANTS.items():
        assert run(name, **variant) == pytest.approx(plain, abs=1e-5), name


def test_it_learns(base, write_recipe, train) -> None:
    fields = {"max_steps": 40, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 40}
    folder = train(
        write_recipe(base_model=str(base), **fields, encoder="frozen", eval_strategy="steps", eval_steps=40)
    )
    found = losses(folder)
    assert found[-1] < 0.3 * found[0]


@pytest.mark.parametrize("packing", [False, True])
def test_bf16_is_close(base, write_recipe, train, monkeypatch, packing: bool) -> None:
    """With rows of several chunks, from one to the next of which a state passes."""
    monkeypatch.setattr(ssd_mac, "CPU_CHUNK", 16)
    fields = {"base_model": str(base), "save_strategy": "steps", "save_steps": 3, "packing": packing}
    exact = losses(train(write_recipe(**fields, output_dir=str(base.parent / f"float32-{packing}"))))
    close = losses(train(write_recipe(**fields, bf16=True, output_dir=str(base.parent / f"bf16-{packing}"))))
    assert close == pytest.approx(exact, rel=0.02) and close != exact


def test_loss_on_all_counts_the_prompt(base, write_recipe, train) -> None:
    fields = {"base_model": str(base), "save_strategy": "steps", "save_steps": 3}
    runs = [losses(train(write_recipe(**fields, loss_on=on, output_dir=str(base.parent / on))))
            for on in ("answer", "all")]  # fmt: skip
    assert abs(runs[0][0] - runs[1][0]) > 1e-3


def test_the_best_checkpoint_by_any_metric_and_early_stopping(base, write_recipe, train, capsys) -> None:
    recipe = write_recipe(
        base_model=str(base), max_steps=10, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        save_total_limit=1, metric_for_best_model="naming_accuracy", load_best_model_at_end=True,
        early_stopping_patience=2, learning_rate=1e-7,
    )  # fmt: skip
    folder = train(recipe)  # with so small steps all captions stay the same: none is better than the first
    assert capsys.readouterr().out.count("  validation: ") == 3
    kept = sorted(path.name for path in folder.glob("stage-1/checkpoint-*"))
    assert kept == ["checkpoint-1"]
    best = load_file(folder / "stage-1" / "checkpoint-1" / "model.safetensors")
    result = load_file(folder / "stage-1" / "result" / "model.safetensors")
    assert all(torch.equal(best[name], result[name]) for name in best)


def test_grouping_by_length(base, write_recipe, train, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(TrainingSet, "lengths", property(lambda self: asked.append(1) or [1, 9, 1, 9]), raising=False)
    train(write_recipe(base_model=str(base), max_steps=1, output_dir=str(base.parent / "ungrouped")))
    assert not asked
    train(write_recipe(base_model=str(base), train_sampling_strategy="group_by_length", max_steps=1))
    assert asked
    lengths = [row % 10 for row in range(1000)]
    spreads = []
    for sampler in (EpochSampler(1000, seed=3), EpochSampler(1000, 3, lengths, batch_size=10)):
        rows = list(sampler)
        assert sorted(rows) == list(range(1000))
        batches = torch.tensor(rows).view(100, 10) % 10
        spreads.append(float((batches.max(1).values - batches.min(1).values).float().mean()))
    assert spreads[0] > 6 and spreads[1] < 2


def test_an_epochs_order_derives_from_seed_and_epoch() -> None:
    first, again, other = (EpochSampler(50, seed) for seed in (1, 1, 2))
    assert list(first) == list(again) != list(other) and sorted(first) == list(range(50))
    before = list(first)
    first.set_epoch(1)
    assert list(first) != before
    again.set_epoch(1)
    assert list(first) == list(again)


def test_waiting_is_told_from_training(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr("training_mac.loop.throughput.time.perf_counter", lambda: now[0])
    throughput = Throughput()
    for _ in range(2):
        with throughput.waiting():
            now[0] += 1
        throughput.clips += 8
        throughput.windows += 12
        now[0] += 3
        with throughput.paused():
            now[0] += 100  # evaluation
    assert throughput.read() == {"clips_per_second": 2.0, "waiting_for_data": 0.25, "windows_per_clip": 1.5}
    throughput.reset()
    with throughput.waiting():
        now[0] += 1
    assert throughput.read() == {"clips_per_second": 0.0, "waiting_for_data": 1.0}


def test_tensorboard_hears_of_losses_and_captions(base, write_recipe, train, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    train(write_recipe(base_model=str(base), report_to="tensorboard", eval_strategy="steps", eval_steps=3))
    [file] = (tmp_path / "events").rglob("events*")
    events = EventAccumulator(str(file)).Reload()
    assert {"train/loss", "train/waiting_for_data", "eval/cider_d"} <= set(events.Tags()["scalars"])

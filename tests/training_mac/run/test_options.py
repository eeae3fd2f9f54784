"""Every option of transformers that reaches into a model: it does what it says, or is refused in a sentence."""

import json
from typing import Any

import pytest
import torch
from accelerate.utils import memory
from torch import nn

from training_mac.loop.trainer import MacTrainer
from training_mac.recipe.file import load_stages
from training_mac.run.check import check_stages


VALIDATES = {"eval_strategy": "steps", "eval_steps": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_liger_kernel": True}, "`use_liger_kernel`: the Liger kernels know no MAC"),
        ({"remove_unused_columns": True}, "`remove_unused_columns`: must stay false"),
        ({"label_names": ["words"]}, "`label_names`: the labels of every objective are known"),
        ({"length_column_name": "seconds"}, "`length_column_name`: lengths come from the recordings"),
        ({"data_seed": 1}, "`data_seed`: the order of the data derives from `seed`"),
        ({"prediction_loss_only": True}, "`prediction_loss_only`: validation captions"),
        ({"eval_do_concat_batches": False}, "`eval_do_concat_batches`: validation captions"),
        ({"batch_eval_metrics": True}, "`batch_eval_metrics`: validation captions"),
        ({"include_for_metrics": ["inputs"]}, "`include_for_metrics`: validation captions"),
        ({"eval_accumulation_steps": 2}, "`eval_accumulation_steps`: validation captions"),
        ({"predict_with_generate": True}, "no field 'predict_with_generate'"),
        ({"group_by_length": True}, "no field 'group_by_length'"),
        ({"eval_on_start": True}, "`eval_on_start` asks for validation"),
        ({"save_strategy": "epoch", "save_only_model": True}, "`save_only_model` would leave the optimizer's state"),
        ({"neftune_noise_alpha": 5.0, "packing": True}, "`neftune_noise_alpha` scales its noise by a row's length"),
        ({"objective": "teacher", "train_sampling_strategy": "group_by_length"}, "need no groups"),
        ({"objective": "tags", "gradient_checkpointing": True}, "does nothing for .*`gradient_check"),
        ({"objective": "distillation", "distill_from": "mac-tiny", "torch_compile": True}, "beside its teacher here"),
        *(
            ({"objective": objective, **option}, f"`{next(iter(option))}` does nothing for `objective: {objective}`")
            for objective in ("tags", "teacher")
            for option in (
                {"label_smoothing_factor": 0.1}, {"neftune_noise_alpha": 5.0}, {"activation_checkpointing": True},
                {"include_num_input_tokens_seen": "all"}, {"torch_compile": True},
            )
        ),
    ],
)  # fmt: skip
def test_what_would_be_ignored_is_refused(base, write_recipe, tables, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_stages(load_stages([str(write_recipe(base_model=str(base), **fields))]), tables)


def test_defaults_are_no_requests(base, write_recipe, tables) -> None:
    """A recipe may name an option to say that it is off."""
    off = {"label_smoothing_factor": 0.0, "neftune_noise_alpha": None, "include_num_input_tokens_seen": "no"}
    off |= dict.fromkeys(["torch_compile", "save_only_model", "gradient_checkpointing", "use_liger_kernel"], False)
    for objective in ("captions", "tags", "teacher"):
        check_stages(load_stages([str(write_recipe(base_model=str(base), objective=objective, **off))]), tables)


def log_of(folder: Any) -> list[dict[str, Any]]:
    """The lines of the last checkpoint's log."""
    [state] = folder.glob("stage-1/checkpoint-*/trainer_state.json")
    return json.loads(state.read_text())["log_history"]


@pytest.fixture
def run(base, write_recipe, train, tmp_path):
    """Trains four steps with these options; gives the log."""

    def run(name: str, **options: Any) -> list[dict[str, Any]]:
        fields = {"base_model": str(base), "max_steps": 4, "save_strategy": "steps", "save_steps": 4, **options}
        return log_of(train(write_recipe(output_dir=str(tmp_path / name), **fields)))

    return run


def losses(log: list[dict[str, Any]]) -> list[float]:
    return [entry["loss"] for entry in log if "loss" in entry]


def test_smoothing_learns_from_the_shifted_labels(run, monkeypatch) -> None:
    """At a smoothing of next to nothing the loss is the model's own, over every way of cutting a batch."""
    plain = losses(run("plain"))
    halves = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    for name, options in {"whole": {}, "packed": {"packing": True}, "halves": halves}.items():
        assert losses(run(name, label_smoothing_factor=1e-6, **options)) == pytest.approx(plain, rel=1e-3), name
    assert losses(run("much", label_smoothing_factor=0.5))[0] > plain[0]


@pytest.mark.parametrize("language_model", ["full", "lora"])
def test_noise_counts_and_compilation_reach_the_model(run, language_model) -> None:
    fields = {"language_model": language_model}
    plain = run("plain", **fields)
    noisy = run("noisy", neftune_noise_alpha=50.0, **fields)
    assert losses(noisy)[0] != pytest.approx(losses(plain)[0], abs=1e-4)
    counted = run("counted", include_num_input_tokens_seen="non_padding", **fields)
    assert losses(counted) == losses(plain)
    seen = [entry["num_input_tokens_seen"] for entry in counted if "loss" in entry]
    assert seen[0] > 4 * 32 and seen == [step * seen[0] for step in range(1, 5)]  # four clips with their audio tokens
    assert losses(run("apart", average_tokens_across_devices=False, **fields)) == pytest.approx(losses(plain))
    compiled = run("compiled", torch_compile_backend="aot_eager", **fields)
    assert losses(compiled) == pytest.approx(losses(plain), abs=1e-4)


def test_a_batch_too_large_for_the_memory_shrinks(run, monkeypatch) -> None:
    step, sizes = MacTrainer.training_step, []
    monkeypatch.setattr(memory, "clear_device_cache", lambda garbage_collection=False: None)

    def limited(self: MacTrainer, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, model, inputs, num_items_in_batch)

    monkeypatch.setattr(MacTrainer, "training_step", limited)
    log = run("smaller", auto_find_batch_size=True)
    assert sizes == [4, 3, 2, 2, 2, 2] and len(losses(log)) == 4  # accelerate takes a tenth off at a time

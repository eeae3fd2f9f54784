"""Two processes do what one does, and the configurations for machines that are not here are understood."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)

from modeling_mac import MacForConditionalGeneration
from processing_mac.dataset_mac import read_manifest
from training_mac.loop.validation import caption_batch, rows_of_process
from training_mac.run.building import load_base


CONFIGS = Path(__file__).parents[2] / "recipes" / "accelerate"


def history(folder: Path) -> list[dict]:
    """What the stages' Trainers have logged."""
    states = sorted(folder.glob("stage-*/trainer_state.json"))
    return [entry for state in states for entry in json.loads(state.read_text())["log_history"]]


def test_two_processes_equal_one(base, manifest, write_recipe, train, in_process, tmp_path) -> None:
    """Same seed and global batch: same losses, captions scored and weights; every step draws a new epoch's scenes."""
    three = manifest.with_name("three.csv")  # not a multiple of the processes
    three.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    fields = {
        "base_model": str(base), "eval_data": str(three), "overlay_probability": 0.5, "max_steps": 4,
        "eval_strategy": "steps", "eval_steps": 2, "encoder": "lora", "language_model": "lora",
        "stages": [{"encoder": "frozen", "language_model": "frozen"}, {}],
    }  # fmt: skip
    one = train(write_recipe(**fields, output_dir=str(tmp_path / "one")))
    recipe = write_recipe(**fields, per_device_train_batch_size=2, output_dir=str(tmp_path / "two"))
    launch = ["-m", "accelerate.commands.launch", "--config_file", CONFIGS / "cpu2.yaml"]
    result = in_process(*launch, "train.py", recipe)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("The model is in") == 1 and "2 processes" in result.stdout  # and one of them speaks
    first, second = history(one), history(tmp_path / "two")
    assert len(first) == len(second) == 14  # in each stage 4 losses, 2 evaluations and the end
    for before, after in zip(first, second, strict=True):
        for name in before.keys() & {"loss", "learning_rate", "eval_loss", "eval_cider_d", "eval_naming_accuracy"}:
            assert before[name] == pytest.approx(after[name], abs=1e-5), (name, before, after)
    assert len({entry["loss"] for entry in first if "loss" in entry}) == 8
    clips = [entry["clips_per_second"] for entry in second if "loss" in entry]
    assert len(clips) == 8 and all(rate > 0 for rate in clips)


@pytest.mark.parametrize(("count", "processes"), [(7, 2), (8, 2), (1, 3), (5, 1)])
def test_processes_share_the_clips(count: int, processes: int) -> None:
    shares = [rows_of_process(count, processes, index) for index in range(processes)]
    assert len({len(share) for share in shares}) == 1  # as many each: they generate in step
    rows = [row for share in shares for row in share]
    assert len(set(rows)) == len(rows) and set(rows) >= set(range(count))  # none counts twice


def test_a_clip_that_is_captioned_to_keep_step_does_not_count(base, manifest) -> None:
    model, processor = load_base(str(base))
    one, other = read_manifest(manifest)[:2]
    with torch.no_grad():
        _, alone = caption_batch(model.eval(), processor, [one], counted=1)
        captions, both = caption_batch(model, processor, [one, other], counted=1)
        assert caption_batch(model, processor, [other], counted=0)[1] == (0.0, 0)
    assert len(captions) == 2 and both == pytest.approx(alone, rel=1e-5) and alone[1] > 0


def dry_run(name: str, *arguments: str) -> tuple[Namespace, dict[str, str]]:
    """What `accelerate launch` would do: its arguments, and the environment of the processes."""
    options = ["--config_file", str(CONFIGS / name), *arguments, "train.py", "recipe.yaml"]
    parsed, config, _ = _validate_launch_command(launch_command_parser().parse_args(options))
    if parsed.use_deepspeed:
        parsed.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)
        return parsed, prepare_deepspeed_cmd_env(parsed)[1]
    if parsed.multi_gpu or parsed.use_fsdp:
        return parsed, prepare_multi_gpu_env(parsed)
    return parsed, prepare_simple_launcher_cmd_env(parsed)[1]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_understood_and_says_whether_it_was_run(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.main_training_function == "main"
    text = path.read_text()
    assert f"recipes/accelerate/{path.name}" in text and ("not run" in text) == (path.name != "cpu2.yaml")


def test_dry_runs() -> None:
    _, one = dry_run("gpu1.yaml")
    assert one["ACCELERATE_MIXED_PRECISION"] == "bf16"
    arguments, ddp = dry_run("ddp.yaml", "--num_processes", "4")
    assert arguments.multi_gpu and arguments.nproc_per_node == "4" and ddp["ACCELERATE_MIXED_PRECISION"] == "bf16"
    arguments, _ = dry_run("multi_node.yaml", "--machine_rank", "1", "--main_process_ip", "10.0.0.1")
    assert (str(arguments.node_rank), arguments.nnodes, arguments.nproc_per_node) == ("1", "2", "8")
    assert arguments.rdzv_endpoint == "10.0.0.1:29500"
    arguments, zero = dry_run("deepspeed_zero2.yaml")
    assert arguments.use_deepspeed and zero["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "2"
    assert zero["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "auto"


def test_fsdp_wraps_our_layers(monkeypatch, make_config) -> None:
    config = make_config()
    config.audio_config.num_hidden_layers = 4  # of fewer, each is one that may prune
    model = MacForConditionalGeneration(config)
    arguments, environment = dry_run("fsdp.yaml")
    assert arguments.use_fsdp
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    plugin.set_auto_wrap_policy(model)
    wrapped = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert {layer.__name__ for layer in wrapped} == {"EatLayer", "Mamba2Block"}
    layers = [*model.model.audio_tower.layers, *model.model.language_model.layers]
    assert all(isinstance(layer, tuple(wrapped)) for layer in layers)

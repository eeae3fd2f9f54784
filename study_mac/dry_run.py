"""What a cell would cost: parameters, audio tokens, steps and hours, without its weights and without its training."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig, Mamba2Config

from modeling_mac import EatConfig, MacConfig, MacForConditionalGeneration
from study_mac.study_file import Cell, Study
from study_mac.timing import clip_seconds
from training_mac.data.tables import ClipTables
from training_mac.loop.adapters import attach_adapter, part_of, set_trainable
from training_mac.recipe.data_fields import parse_sources
from training_mac.recipe.file import Stage, load_stages
from training_mac.run.model_fields import OF_CONNECTOR, change_config, check_model, read_config


MAMBA2 = {  # width and layers of the released models, whose files need not be here (state-spaces/mamba2-…)
    "130m": (768, 24),
    "370m": (1024, 48),
    "780m": (1536, 48),
    "1.3b": (2048, 48),
    "2.7b": (2560, 64),
}
TEN_SECONDS = 1000  # in frames
SMALL = 50e6  # parameters up to which a whole step is timed here, asked or not


def print_costs(study: Study, cells: Sequence[Cell], time_steps: bool = False) -> None:
    """A line a cell, and the sums; with `time_steps` larger models are timed on this machine, too."""
    totals: dict[str, float] = {}
    for number, cell in enumerate(cells, start=1):
        cost = cell_cost(study, cell, time_steps)
        hours = cost["hours"]
        totals = {name: totals.get(name, 0) + value for name, value in hours.items()}
        print(
            f"[{number}/{len(cells)}] {cell.name}: trained {cost['trained']:,} of {cost['parameters']:,} parameters; "
            f"{cost['audio_tokens'] * cost['windows']} audio tokens of 10 s, "
            f"{cost['with_separators'] * cost['windows']} with separators; "
            f"{cost['steps']:,} steps; {format_hours(hours)}",
            flush=True,
        )
    print(f"{len(cells)} cells: {format_hours(totals)}")


def format_hours(hours: dict[str, float]) -> str:
    """`about 12.5 h on 1 x H100`, minutes below an hour, or that it is not known."""
    return ", ".join(f"about {format_time(value)} on {name}" for name, value in hours.items()) or "hours not known"


def format_time(hours: float) -> str:
    """`1,834 h`, `3.46 h`, `12 min`."""
    if hours < 1:
        return f"{60 * hours:.2g} min"
    return f"{hours:,.0f} h" if hours >= 100 else f"{hours:.3g} h"


def cell_cost(study: Study, cell: Cell, time_steps: bool = False) -> dict[str, Any]:
    """
    Sizes of a cell's model and of its training.

    Returns:
        `parameters`, `trained` (in the last stage), of a window `audio_tokens` and `with_separators`, `windows` that
        are heard of 10 s, `steps` and `hours` by machine.
    """
    stages = stages_of(study, cell)
    sizes = model_sizes(stages)
    examples = stage_examples(study, stages)
    steps = sum(map(stage_steps, stages, examples))
    return {**sizes, "steps": steps, "hours": hours_of(study, stages, sizes, examples, time_steps)}


def stages_of(study: Study, cell: Cell) -> list[Stage]:
    """The stages of a cell's recipe, read as `mac-train` reads them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        recipe = {**study.recipe_of(cell), "use_cpu": True, "bf16": False}  # to be read where there is no GPU
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return load_stages([str(path)])


def model_config(stage: Stage) -> MacConfig:
    """The configuration of the model that a run starts from; released towers are known by name."""
    recipe = stage.recipe
    check_model(recipe)  # a field that does not exist would change nothing
    if recipe.base_model:
        return change_config(read_config(recipe.base_model), recipe.model, recipe.base_model)
    fields = dict(recipe.model)
    if recipe.base_language_model is None:
        fields["text_config"] = {
            "model_type": "mamba2",
            **fields.get("text_config", {}),
            "vocab_size": recipe.vocab_size,
        }
        return MacConfig(**{**fields, "audio_token_id": 2})
    of_connector = {name: fields[name] for name in OF_CONNECTOR if name in fields}
    return MacConfig(audio_config=tower_config(str(recipe.base_audio_tower)),
                     text_config=language_model_config(recipe.base_language_model), **of_connector)  # fmt: skip


def tower_config(name: str) -> Any:
    """EAT-base for a released EAT, else what the folder says."""
    local = Path(name).is_dir()
    return AutoConfig.from_pretrained(name) if local else EatConfig()


def language_model_config(name: str) -> Any:
    """Sizes of a released Mamba-2, else what folder or Hub say."""
    size = name.removeprefix("state-spaces/mamba2-")
    if size in MAMBA2:
        width, layers = MAMBA2[size]
        return Mamba2Config(hidden_size=width, num_hidden_layers=layers, num_heads=width // 32, head_dim=64,
                            state_size=128, n_groups=1, vocab_size=50288, tie_word_embeddings=True)  # fmt: skip
    return AutoConfig.from_pretrained(name)


def model_sizes(stages: Sequence[Stage]) -> dict[str, Any]:
    """Parameters in all and trained, by counting a model without weights; tokens of a window."""
    config = model_config(stages[0])
    with torch.device("meta"):
        model = attach_adapter(MacForConditionalGeneration(config), [stage.recipe for stage in stages])
    set_trainable(model, stages[-1].recipe)
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if "original_module" not in name:  # peft's copy of a part that trains in full
            counts[part_of(name)] = counts.get(part_of(name), 0) + parameter.numel()
    windows = -(-TEN_SECONDS // config.audio_config.window_frames)
    runs = config.audio_tokens_per_window // config.audio_tokens_per_run
    return {
        "parameters": sum(counts.values()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "audio_tokens": config.audio_tokens_per_window,
        "with_separators": config.audio_tokens_per_window + runs - 1,
        "windows": min(stages[0].data.max_windows or TEN_SECONDS, windows),
        "parts": counts,
        "grid": config.audio_config.num_tokens,
    }


def stage_examples(study: Study, stages: Sequence[Stage]) -> list[int]:
    """Examples of an epoch of each stage: what the study says, else what the data holds."""
    if given := study.costs.get("stage_examples"):
        if len(given) != len(stages):
            raise ValueError(f"{study.path}: `stage_examples` has {len(given)} numbers for {len(stages)} stages.")
        return list(given)
    counts = []
    with tempfile.TemporaryDirectory() as folder, ClipTables(Path(folder) / "clips") as tables:
        for stage in stages:
            for source in parse_sources(stage.data.train_data, stage.data):
                tables.read(source)
            counts.append(sum(len(table) for _, table in tables.training(stage.data)))
    return counts


def stage_steps(stage: Stage, examples: int) -> int:
    """Optimiser steps of a stage on one process, as the Trainer counts them."""
    training = stage.training
    if training.max_steps > 0:
        return training.max_steps
    batches = examples / training.per_device_train_batch_size
    batches = math.floor(batches) if training.dataloader_drop_last else math.ceil(batches)
    steps = max(math.ceil(batches / training.gradient_accumulation_steps), 1)
    return math.ceil(steps * training.num_train_epochs)


def seen(stage: Stage, examples: int) -> int:
    """Examples that a stage goes through."""
    training = stage.training
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    steps = stage_steps(stage, examples) * batch
    return steps if training.max_steps > 0 else min(steps, round(examples * training.num_train_epochs))


def hours_of(
    study: Study, stages: Sequence[Stage], sizes: dict[str, Any], examples: Sequence[int], time_steps: bool
) -> dict[str, float]:
    """Hours by machine: steps timed on this one, operations for those of `hardware`."""
    text = study.costs.get("text_tokens", 40)
    operations = sum(
        operations_of(stage, sizes, text) * seen(stage, n) for stage, n in zip(stages, examples, strict=True)
    )
    hours = {
        name: operations / (float(speed) * 1e12) / 3600 for name, speed in study.costs.get("hardware", {}).items()
    }
    small = sizes["parameters"] <= SMALL
    if small or time_steps:
        timed = clip_seconds(model_config(stages[0]), stages, text, small, bool(study.recipe.get("bf16")))
        clips = sum(seen(stage, n) for stage, n in zip(stages, examples, strict=True))
        hours["this machine"] = timed * clips / 3600
    return hours


def operations_of(stage: Stage, sizes: dict[str, Any], text: int) -> float:
    """
    Floating-point operations of one example: 2 a parameter and token forwards, as many backwards through what lies
    between a trained part and the loss, as many again for the gradients of what trains.
    """
    recipe, parts = stage.recipe, sizes["parts"]
    tokens = sizes["with_separators"] + text
    share = {"frozen": 0.0, "lora": 0.1, "full": 1.0}
    tower_backward = 0.0 if recipe.encoder == "frozen" else 1.0 + share[recipe.encoder]
    tower = 2 * parts.get("encoder", 0) * sizes["grid"] * (1 + tower_backward)
    language = 2 * parts.get("language_model", 0) * tokens * (2 + share[recipe.language_model])
    return tower + language + 6 * parts.get("connector", 0) * sizes["audio_tokens"]

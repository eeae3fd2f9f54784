"""
The folder of a run, which tells what the run is, what is done, and where it goes on.

    OUTPUT_DIR/run.json               the settings of every stage
    OUTPUT_DIR/clips                  tables of the data, while it runs
    OUTPUT_DIR/base                   the model it starts from, unless that is a whole one elsewhere
    OUTPUT_DIR/stage-1/checkpoint-50  the Trainer's
    OUTPUT_DIR/stage-1/result         what was learnt by the end of the stage; trainer_state.json beside it: its log
    OUTPUT_DIR                        the model itself, at the end

Every stage starts from these files and never from memory, so that a run that was killed and one that was not are the
same run.
"""

import json
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import set_seed

from processing_mac.processing_mac import DEFAULT_PROMPT
from processing_mac.whole_files_mac import write_text_whole
from training_mac.data.tables import ClipTables
from training_mac.loop.adapters import attach_adapter, ends_whole, module_to_train
from training_mac.loop.checkpoints import (
    is_whole,
    last_whole_checkpoint,
    remove_partial_checkpoints,
    write_whole,
)
from training_mac.loop.pruning import learnt_keep_rate
from training_mac.recipe.fields import keeps_weights, marked
from training_mac.recipe.file import Stage, load_stages
from training_mac.run.building import load_base, make_base
from training_mac.run.model_fields import model_below


WEIGHTS = "model.safetensors"
TEACHER = "teacher.safetensors"  # weights of a network that later stages imitate


class Run:
    """
    A recipe's stages and the folder that they are trained in.

    Args:
        stages: Stages of the run, as `load_stages` gives them.

    Raises:
        ValueError: The folder holds a run of other settings.
    """

    def __init__(self, stages: list[Stage]):
        self.stages = stages
        self.recipes = [stage.recipe for stage in stages]
        self.folder = Path(stages[0].settings["output_dir"])
        self.is_main = stages[0].training.process_index == 0
        for name in marked("base"):
            if any(getattr(recipe, name) != getattr(self.recipes[0], name) for recipe in self.recipes):
                raise ValueError(f"`{name}` differs between the stages: a run starts from one model.")
        settings = [{name: value for name, value in stage.settings.items() if keeps_weights(name)}
                    for stage in self.stages]  # fmt: skip
        self.settings = json.loads(json.dumps(settings))
        if self.has_begun:
            self.compare_settings()

    @classmethod
    def from_arguments(cls, arguments: list[str]) -> "Run":
        """Make the run of a command line, which names a recipe and overrides its fields, as `load_stages` explains."""
        return cls(load_stages(arguments))

    @property
    def has_begun(self) -> bool:
        """Whether a stage of a run in the folder has written a file."""
        return any(self.folder.glob("stage-*/*"))

    def compare_settings(self) -> None:
        """Refuse to go on with settings other than those of the run in the folder."""
        before, settings = json.loads((self.folder / "run.json").read_text(encoding="utf-8")), self.settings
        if len(before) != len(settings):
            raise ValueError(f"{self.folder} holds a run of {len(before)} stages, not of {len(settings)}. {HINT}")
        for number, (old, new) in enumerate(zip(before, settings, strict=True), start=1):
            for name in sorted(old.keys() | new.keys()):
                if old.get(name) != new.get(name):
                    raise ValueError(
                        f"{self.folder} holds a run whose stage {number} has {name}: {old.get(name)!r}; this one has "
                        f"{new.get(name)!r}. {HINT}"
                    )

    def read_sources(self) -> ClipTables:
        """Give the tables for the clips of every source, for a `with` block; `check_stages` fills them."""
        return ClipTables(self.folder / "clips")

    def begin(self, tables: ClipTables) -> None:
        """Write down the stages' settings and make the model that they start from, unless this was done before."""
        if self.is_main:
            if not self.has_begun:
                shutil.rmtree(self.folder / "base", ignore_errors=True)
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text_whole(self.folder / "run.json", json.dumps(self.settings, indent=1))
            if self.makes_base and not is_whole(Path(self.base)):
                if self.has_begun and self.recipes[0].base_model:
                    raise ValueError(f"{self.base} is missing, from which the run in {self.folder} began. {HINT}")
                self.make_base(tables)
        PartialState().wait_for_everyone()

    def make_base(self, tables: ClipTables) -> None:
        """Join towers, make a new model with a tokenizer of the captions, or merge an adapter with its base."""
        stage, recipe = self.stages[0], self.recipes[0]
        set_seed(stage.training.seed)
        has_words = recipe.base_model is not None or recipe.base_audio_tower is not None
        texts = () if has_words else tables.texts(stage.data)
        make_base(recipe, stage.data.prompt or DEFAULT_PROMPT, texts, Path(self.base))

    @property
    def adapter_base(self) -> str | None:
        """Give the model that the run's adapter will belong to; None for a run that ends in a whole model."""
        if ends_whole(self.recipes):
            return None
        return str(Path(self.base).resolve()) if self.makes_base else self.base

    @cached_property
    def makes_base(self) -> bool:
        """Whether what the run starts from is made in its folder: a new model, or an adapter merged with its base."""
        base = self.recipes[0].base_model
        return base is None or model_below(base) is not None

    @property
    def base(self) -> str:
        """The folder or Hub id of the whole model that the run starts from."""
        base = self.recipes[0].base_model
        return str(self.folder / "base") if base is None or self.makes_base else base

    def stage_folder(self, number: int) -> Path:
        """Give the folder of a stage's checkpoints and result."""
        return self.folder / f"stage-{number}"

    def result(self, number: int) -> Path:
        """Give the folder of what was learnt by the end of a stage."""
        return self.stage_folder(number) / "result"

    @property
    def is_finished(self) -> bool:
        """Whether every stage has come to its end."""
        return all(is_whole(self.result(stage.number)) for stage in self.stages)

    def unfinished(self) -> Iterator[Stage]:
        """Go through the stages that are not finished."""
        for stage in self.stages:
            if is_whole(self.result(stage.number)):
                PartialState().print(f"Stage {stage.number} is finished already.")
            else:
                state, count = PartialState(), len(self.stages)
                state.print(
                    f"Stage {stage.number} of {count}: {stage.recipe.objective}"
                    + (f" on {state.num_processes} processes" if state.num_processes > 1 else "")
                )
                yield stage

    def load(self, after: int) -> tuple[Any, Any]:
        """Load the model, with its LoRA layers, and the processor as they were after the first `after` stages."""
        fields = self.recipes[0].model if self.recipes[0].base_model is not None else None  # else the base has them
        model, processor = load_base(self.base, fields)
        set_seed(self.stages[0].training.seed)  # seed of new LoRA matrices
        if (keep_rate := learnt_keep_rate(self.recipes[:after])) is not None:
            model.config.audio_config.keep_rate = keep_rate
        model = attach_adapter(model, self.recipes)
        if after:
            weights = load_file(self.result(after) / WEIGHTS)
            unexpected = module_to_train(model, self.recipes).load_state_dict(weights, strict=False).unexpected_keys
            if unexpected:
                raise ValueError(f"{self.result(after)} holds weights of another model: {', '.join(unexpected[:5])}.")
        return model, processor

    def teachers(self, before: int) -> list[dict[str, torch.Tensor]]:
        """Load the teachers' weights that the stages before this one trained; `check_stages` made sure of them."""
        files = [self.result(number) / TEACHER for number in range(1, before)]
        return [load_file(file) for file in files if file.is_file()]

    def last_checkpoint(self, stage: Stage) -> Path | None:
        """Give the checkpoint that a stage goes on from, if any; half-written ones are removed."""
        folder = self.stage_folder(stage.number)
        if self.is_main:
            remove_partial_checkpoints(folder)
        PartialState().wait_for_everyone()
        return last_whole_checkpoint(folder)

    def save_result(
        self, stage: Stage, weights: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Write what was learnt by the end of a stage, whole or not at all: the model, and a teacher beside it."""
        if self.is_main:
            with write_whole(self.result(stage.number)) as folder:
                save_file(weights, folder / WEIGHTS)
                if teacher is not None:
                    save_file(teacher, folder / TEACHER)
        PartialState().wait_for_everyone()


HINT = "To go on with it, run it as it was; to start anew, choose another --output_dir or delete this one."


def learnt_weights(state_dict: dict[str, torch.Tensor], whole: bool) -> dict[str, torch.Tensor]:
    """Choose the tensors of a model to keep, shared ones once: all, or those of LoRA and of the parts beside it."""
    kept: dict[str, torch.Tensor] = {}
    seen: set[tuple] = set()
    for name, tensor in state_dict.items():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in seen and (whole or "lora_" in name or "modules_to_save" in name):
            seen.add(place)
            kept[name] = tensor.detach().cpu().contiguous()
    return kept


def gather_weights(trainer: Any, model: nn.Module) -> dict[str, torch.Tensor]:
    """Gather the model's tensors, each as a whole; all processes must call this."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return model.state_dict()

"""Recipes: YAML files, overridden by `--field value`, checked against the fields below and TrainingArguments'."""

import difflib
import re
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments

from training_mac.data_recipe import DataRecipe


class RecipeLoader(yaml.SafeLoader):
    """YAML, with 1e-4 read as the number that it is everywhere else."""


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass
class Recipe:
    """What MAC's training needs beyond transformers' TrainingArguments."""

    base_model: str | None = field(
        default=None, metadata={"help": "MAC folder or Hub id to start from; a new model from `model` if not given."}
    )
    model: dict = field(
        default_factory=dict, metadata={"help": "Fields of MacConfig for a new model, sub-configs as mappings."}
    )
    vocab_size: int = field(default=1000, metadata={"help": "Size of the BPE that is trained for a new model."})
    objective: str = field(
        default="captions",
        metadata={"help": "'captions': the whole model; 'tags': its encoder alone, on the `source` column."},
    )
    whiten: bool = field(
        default=False,
        metadata={"help": "Before tags, start the patch embedding from the principal components of the recordings."},
    )
    kept_patches: int = field(
        default=128, metadata={"help": "Patches of a window that enter the encoder while it learns tags."}
    )
    encoder: str = field(default="full", metadata={"help": "'full' trains the encoder, 'frozen' leaves it as it is."})
    encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the encoder; `learning_rate` if not given."}
    )
    store_float16: bool = field(
        default=False, metadata={"help": "Write the final weights as float16; they load as float32."}
    )
    stages: list[dict] = field(
        default_factory=list,
        metadata={"help": "Overrides of these fields, one mapping a stage; run one after another."},
    )


def load_stages(arguments: list[str]) -> list[tuple[Recipe, DataRecipe, TrainingArguments]]:
    """
    Parse `recipe.yaml [--field value …]` into one (recipe, data, training arguments) a stage.

    Stage i writes its checkpoints to `output_dir/stage-i`.

    Raises:
        ValueError: no such recipe, a field that does not exist (the nearest one is named), a value of a wrong kind.
    """
    parser = HfArgumentParser([Recipe, DataRecipe, TrainingArguments])
    if not arguments or arguments[0] in ("-h", "--help"):
        parser.print_help()
        sys.exit(0)
    path = Path(arguments[0])
    if not path.is_file():
        raise ValueError(f"{path}: no such recipe.")
    settings = yaml.load(path.read_text(encoding="utf-8"), RecipeLoader) or {}
    overrides = parse_overrides(arguments[1:])
    known = {entry.name for kind in (Recipe, DataRecipe, TrainingArguments) for entry in fields(kind) if entry.init}
    stages = settings.get("stages") or [{}]
    for origin, names in [(str(path), settings), ("command line", overrides), *((str(path), one) for one in stages)]:
        check_names(names, known, origin)
    output_dir = overrides.get("output_dir", settings.get("output_dir", "runs/mac"))
    parsed = []
    for index, stage in enumerate(stages, start=1):
        merged = {**settings, **stage, **overrides, "stages": [], "output_dir": f"{output_dir}/stage-{index}"}
        recipe, data, training = parser.parse_dict(merged)
        parsed.append((recipe, data, training))
    return parsed


def parse_overrides(arguments: list[str]) -> dict[str, Any]:
    """`--field value` pairs; values are read as YAML."""
    if len(arguments) % 2:
        raise ValueError(f"Expected `--field value` pairs after the recipe; got {' '.join(arguments)!r}.")
    overrides = {}
    for name, value in zip(arguments[::2], arguments[1::2], strict=True):
        if not name.startswith("--"):
            raise ValueError(f"Expected `--field`, got {name!r}.")
        overrides[name[2:].replace("-", "_")] = yaml.load(value, RecipeLoader)
    return overrides


def check_names(settings: dict[str, Any], known: set[str], origin: str) -> None:
    """Refuse a field that nothing reads."""
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{origin}: no field {name!r}.{hint}")

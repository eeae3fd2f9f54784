"""
Recipe files: YAML, checked against the fields below, with overrides from the command line.

A later one wins: the recipe's own fields, those of a stage, `--field value` for every stage, `--stages.2.field value`
for the second one. A dot reaches into a mapping: `--model.connector_type time_major`.
"""

import copy
import difflib
import re
import sys
import types
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from processing_mac.dataset_mac import explain_undecodable
from training_mac.recipe.data_fields import DataRecipe
from training_mac.recipe.fields import MacTrainingArguments, Recipe, is_of_run


KINDS = (Recipe, DataRecipe, MacTrainingArguments)
DEFAULT_OUTPUT = "runs/mac"


class RecipeLoader(yaml.SafeLoader):
    """Reads YAML 1.2 where 1.1 surprises: 1e-4 is a number, and only true and false are booleans, not `no`."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|false|False"), list("tTfF"))


@dataclass
class Stage:
    """
    One stage of a recipe.

    Args:
        number: Number of the stage, from 1.
        recipe, data, training: Fields of the stage, in the dataclass each belongs to; checkpoints go to
            `output_dir/stage-NUMBER`.
        settings: Fields of the stage as the recipe and the command line give them.
    """

    number: int
    recipe: Recipe
    data: DataRecipe
    training: MacTrainingArguments
    settings: dict[str, Any]


def load_stages(arguments: list[str]) -> list[Stage]:
    """
    Parse `RECIPE [--field value …]`; a recipe without `stages` has one.

    Raises:
        ValueError: There is no such recipe or stage, a field does not exist (the nearest one is named) or is missing,
            or a value is of a wrong kind.
    """
    parser = HfArgumentParser(KINDS, usage="mac-train RECIPE [--field value …]", description=__doc__)
    if not arguments or arguments[0] in ("-h", "--help"):
        parser.print_help()
        sys.exit(0)
    path = find_recipe(arguments[0])
    common, staged = parse_overrides(arguments[1:])
    settings = read_yaml(path)
    stages = settings.pop("stages", None) or [{}]
    check_stage_list(stages, path)
    if beyond := [number for number in staged if not 0 < number <= len(stages)]:
        raise ValueError(f"command line: no stage {beyond[0]}; {path} has {len(stages)}.")
    for origin, part in [(path, settings), *((f"{path}, stage {i}", one) for i, one in enumerate(stages, 1))]:
        check_fields(part, str(origin))
    for number, stage in enumerate(stages, 1):
        refuse_run_fields({**stage, **staged.get(number, {})}, f"{path}, stage {number}")
    for part in (common, *staged.values()):
        check_fields({name.split(".")[0]: None for name in part}, "command line")
    result = []
    for number, stage in enumerate(stages, start=1):
        merged = copy.deepcopy({"output_dir": DEFAULT_OUTPUT, **settings, **stage})
        for name, value in (common | staged.get(number, {})).items():
            set_dotted(merged, name, value)
        check_fields(merged, f"{path} and command line")
        require_fields(merged, path)
        folder = f"{merged['output_dir']}/stage-{number}"
        # The run is pushed once, at its end; a stage's Trainer would push its checkpoints and write the token down.
        quiet = {"output_dir": folder, "push_to_hub": False, "hub_token": None}
        recipe, data, training = parser.parse_dict({**merged, **quiet})
        result.append(Stage(number, recipe, data, training, merged))
    return result


def recipes_folder() -> Path:
    """Give the folder of the recipes that ship: in a wheel inside this package, in a clone beside it."""
    packaged = Path(str(files("training_mac"))) / "recipes"
    return packaged if packaged.is_dir() else packaged.parents[1] / "recipes"


def find_recipe(name: str) -> Path:
    """
    Find the file of a recipe, given a path or the name of a recipe that ships.

    Raises:
        ValueError: There is neither such a file nor such a recipe.
    """
    path, shipped = Path(name), recipes_folder() / f"{name}.yaml"
    if path.is_file():
        return path
    if shipped.is_file() and path.name == name:
        return shipped
    names = sorted(file.stem for file in recipes_folder().glob("*.yaml") if not file.stem.endswith("_captions"))
    raise ValueError(f"{name}: no such recipe. It is a file, or one of those that ship: {', '.join(names)}.")


def check_stage_list(stages: Any, path: Path) -> None:
    """Refuse `stages` that are no list of mappings."""
    if not isinstance(stages, list):
        raise ValueError(f"{path}: `stages` is {stages!r}; expected a list, each stage a mapping of fields.")
    for number, stage in enumerate(stages, 1):
        if not isinstance(stage, dict):
            raise ValueError(f"{path}, stage {number}: {stage!r}; expected a mapping of fields.")


def refuse_run_fields(stage: dict[str, Any], origin: str) -> None:
    """Refuse in a stage the fields of what a run does once, with all stages behind it."""
    if found := [name for name in stage if is_of_run(name)]:
        raise ValueError(f"{origin}: {found[0]!r} is for the whole run; it stands above `stages`, not in one.")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a recipe file."""
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), RecipeLoader) or {}
    except UnicodeDecodeError as error:
        raise ValueError(explain_undecodable(path, error)) from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected `field: value` lines.")
    return settings


def parse_overrides(arguments: list[str]) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """
    Parse `--field value` or `--field=value` for all stages, and by number those of `--stages.NUMBER.field`.

    Values are YAML; a field without a value, such as `--push_to_hub`, is true.
    """
    common: dict[str, Any] = {}
    staged: dict[int, dict[str, Any]] = {}
    given, last = list(arguments), "--field"
    while given:
        name = given.pop(0)
        if not name.startswith("--"):
            raise ValueError(
                f"{name!r} is a value without its field. Expected `--field value`, and for several values one list: "
                f"{last} '[a, b]'."
            )
        last = name.partition("=")[0]
        name, joined, text = name.partition("=")
        if not joined:
            text = given.pop(0) if given and not given[0].startswith("--") else "true"
        name, value = field_name(name[2:]), yaml.load(text, RecipeLoader)
        if match := re.fullmatch(r"stages\.(\d+)\.(.+)", name):
            staged.setdefault(int(match[1]), {})[match[2]] = value
        elif name.split(".")[0] == "stages":
            raise ValueError(f"--{name}: a stage is overridden as `--stages.NUMBER.field value`, counted from 1.")
        else:
            common[name] = value
    return common, staged


def field_name(name: str) -> str:
    """Turn an option into the name of its field: `learning-rate` names one, but keys of a mapping stay as they are."""
    stage, own, keys = re.fullmatch(r"(stages\.[^.]*\.)?([^.]*)(.*)", name, re.DOTALL).groups("")  # type: ignore[union-attr]
    return f"{stage}{own.replace('-', '_')}{keys}"


def set_dotted(settings: dict[str, Any], name: str, value: Any) -> None:
    """Set `a.b.c` in nested mappings."""
    *path, last = name.split(".")
    for part in path:
        settings = settings.setdefault(part, {})
        if not isinstance(settings, dict):
            raise ValueError(f"command line: {name!r} reaches into {part!r}, which holds no fields.")
    settings[last] = value


def check_fields(settings: dict[str, Any], origin: str) -> None:
    """Refuse a field that nothing reads, and values of another kind than the field's."""
    hints = {name: hint for kind in KINDS for name, hint in get_type_hints(kind).items()}
    known = {entry.name for kind in KINDS for entry in fields(kind) if entry.init} - {"stages"}
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{origin}: no field {name!r}.{hint}")
        if value is not None and not matches(value, hints[name]):
            shown = "not shown" if name == "hub_token" else repr(value)
            raise ValueError(f"{origin}: {name!r} is {shown}; expected {describe(hints[name])}.")


def require_fields(settings: dict[str, Any], path: Path) -> None:
    """Refuse a recipe without a field that has no default."""
    for kind in KINDS:
        for name in [entry.name for entry in fields(kind) if entry.init]:
            parameter = kind.__dataclass_fields__[name]
            if parameter.default is parameter.default_factory and name not in settings:  # both MISSING
                raise ValueError(f"{path}: the field {name!r} is missing: {parameter.metadata['help']}")


def matches(value: Any, hint: Any) -> bool:
    """Whether a value from YAML is of the annotated kind."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(matches(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(matches(item, get_args(hint)[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    kind = origin or hint
    return isinstance(value, kind) if isinstance(kind, type) else True


def describe(hint: Any) -> str:
    """Name an annotated kind in words, for errors."""
    if get_origin(hint) is Literal:
        return " or ".join(repr(option) for option in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(option) for option in get_args(hint) if option is not type(None))
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)

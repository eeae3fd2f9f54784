"""The fields of MacConfig in a recipe's `model`: which exist, and which a model that has learnt can still take."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING
from transformers.utils import find_adapter_config_file

from modeling_mac import MacConfig
from processing_mac.loading_mac import missing_base
from training_mac.recipe.fields import Recipe


PARTS = {"audio_config": "mac_eat", "text_config": "mamba2"}  # parts with their `model_type` if none is given
DROPS = re.compile(r"(^|_)(drop|dropout|pdrop|layerdrop)(_|$)")  # matches shares that training drops out
OF_CONNECTOR = (
    "connector_type", "connector_hidden_size", "connector_width", "connector_layers", "connector_scan", "stack_size",
    "initializer_range", "modality_projections",
)  # fmt: skip
OF_TOKENIZER = re.compile(r"(text_config\.)?(vocab_size|(audio|eos|bos|pad)_token_id)$")

STUDENT = "mac_discrete_mamba2"
OF_MIXERS = ("attention_layers", "state_size", "num_v_heads", "num_qk_heads", "conv_kernel", "expand")
OF_OTHER_MODELS = ("base_audio_tower", "base_language_model", "tokenizer", "vocab_size", "encoder_of", "A_init_range")

Named = Iterator[tuple[str, str, Any]]  # sub-config ("" for MacConfig itself), field, value


def check_model(recipe: Recipe) -> None:
    """
    Refuse fields of `model` that do not exist, or that would change nothing.

    Raises:
        ValueError: A field is refused; the message names it, and says how to get what it asks for.
    """
    if not recipe.model:
        return
    if recipe.base_model is not None:
        change_config(read_config(recipe.base_model), recipe.model, recipe.base_model)
        return
    refuse_unknown(recipe.model, None if recipe.base_language_model else dict(PARTS))
    for part, name, _ in flat(recipe.model):
        path = f"{part}.{name}".lstrip(".")
        if recipe.base_audio_tower is None and OF_TOKENIZER.match(path):
            raise ValueError(
                f"`model.{path}` comes from the tokenizer; `vocab_size` of the recipe says how large it is."
            )
        if recipe.base_audio_tower is not None and not (part and DROPS.search(name)) and path not in OF_CONNECTOR:
            raise ValueError(
                f"`model.{path}` is what the pretrained towers say; beside them `model` may have "
                f"{', '.join(OF_CONNECTOR)}, and of a tower what it drops out in training."
            )


def is_made_of_teacher(recipe: Recipe) -> bool:
    """Whether a run, given the recipe of its first stage, starts from a student that MOHAWK makes of the teacher."""
    return recipe.objective == "mohawk" and recipe.base_model is None


def check_student(recipe: Recipe, settings: Mapping[str, Any]) -> None:
    """
    Refuse fields that would change nothing where a student is made of its teacher, which gives all but the mixers.

    Args:
        recipe: Recipe of the first stage.
        settings: Fields as the recipe and the command line give them.

    Raises:
        ValueError: A field is refused; the message names it.
    """
    if given := [name for name in OF_OTHER_MODELS if settings.get(name) is not None]:
        raise ValueError(f"`{given[0]}`: the student of `objective: mohawk` is made of `distill_from`; leave it out.")
    refuse_unknown(recipe.model, PARTS | {"text_config": STUDENT})
    kind = recipe.model.get("text_config", {}).get("model_type", STUDENT)
    if kind != STUDENT:
        raise ValueError(f"`model.text_config.model_type` is {kind!r}; `objective: mohawk` makes a {STUDENT!r}.")
    for part, name, _ in flat(recipe.model):
        if part != "text_config" or name not in ("model_type", *OF_MIXERS):
            raise ValueError(
                f"`model.{f'{part}.{name}'.lstrip('.')}`: the student of `objective: mohawk` has that of "
                f"`distill_from`; `model.text_config` may have {', '.join(OF_MIXERS)}."
            )


def flat(model: Mapping[str, Any]) -> Named:
    """Go through each field that `model` names."""
    for name, value in model.items():
        if name not in PARTS:
            yield "", name, value
        elif not isinstance(value, Mapping):
            raise ValueError(f"`model.{name}` is {value!r}; expected the fields of a configuration.")
        else:
            yield from ((name, inner, one) for inner, one in value.items())


def refuse_unknown(model: Mapping[str, Any], kinds: Mapping[str, str] | None) -> None:
    """
    Refuse names that no configuration has: transformers keeps them as attributes that nothing reads.

    Args:
        model: Fields of the recipe's `model`.
        kinds: `model_type` of each part for which `model` names none; None if that depends on towers not loaded yet.
    """
    for part, name, _ in flat(model):
        kind = "mac" if not part else model[part].get("model_type") or (kinds or {}).get(part)
        if kind is None:
            continue
        if kind not in CONFIG_MAPPING:
            raise ValueError(f"`model.{part}.model_type`: transformers has no {kind!r}.")
        config = CONFIG_MAPPING[kind]
        known = {"model_type", *(field.name for field in fields(config)), *config.attribute_map}
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"`model`: {config.__name__} has no field {name!r}.{hint}")


def change_config(config: MacConfig, model: Mapping[str, Any], origin: str) -> MacConfig:
    """
    Change a learnt model's configuration in those fields that may change: the shares that training drops out.

    Any other field would need other weights, or change the meaning of the learnt ones, or change nothing at all.

    Args:
        config: Configuration that is changed in place.
        model: Fields of the recipe's `model`.
        origin: Source of the weights, as the message names it.

    Raises:
        ValueError: A field does not exist, or cannot change.
    """
    refuse_unknown(model, {part: getattr(config, part).model_type for part in PARTS})
    for part, name, value in flat(model):
        holder = getattr(config, part) if part else config
        before = getattr(holder, name)
        if json.dumps(before, default=str) == json.dumps(value, default=str):
            continue
        path = f"{part}.{name}".lstrip(".")
        if path == "modality_projections" and not before:  # these start as copies, which change nothing
            config.modality_projections = value
            config.validate_architecture()
            continue
        if not DROPS.search(name):
            raise ValueError(
                f"`model.{path}` is {before!r} in {origin}, whose weights were learnt with that: it cannot become "
                f"{value!r}. For a new connector give `base_audio_tower` and `base_language_model` in place of "
                "`base_model`, for a new model none of these."
            )
        if not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"`model.{path}` is {value!r}; expected a share, from 0 to below 1.")
        setattr(holder, name, float(value))
    return config


def model_below(base: str) -> str | None:
    """
    Name the model that an adapter, by its folder or Hub id, belongs to; None for a whole model.

    Raises:
        ValueError: That model is not there, or is an adapter itself.
    """
    if (Path(base) / "config.json").is_file() or (file := find_adapter_config_file(base)) is None:
        return None
    below = json.loads(Path(file).read_text(encoding="utf-8"))["base_model_name_or_path"]
    if problem := missing_base(Path(file).parent):
        raise ValueError(f"{base}: {problem}.")
    if (Path(below) / "adapter_config.json").is_file() and not (Path(below) / "config.json").is_file():
        raise ValueError(f"{base} is an adapter of {below}, which is an adapter itself: train it anew from that.")
    return below


def read_config(base: str) -> MacConfig:
    """Read the configuration of a folder or Hub id; of an adapter, that of the model below it."""
    return MacConfig.from_pretrained(model_below(base) or base)

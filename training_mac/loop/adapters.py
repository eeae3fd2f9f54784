"""
Which parameters train: each part of the model is frozen, trains through LoRA or in full, at its own learning rate.

LoRA layers are added once, for all stages of a recipe; a stage only decides which parameters learn. The parts that
train in full beside them are peft's `modules_to_save`, so that one small folder holds all that was learnt.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from modeling_mac import MacConfig, MacForConditionalGeneration
from modeling_mac.language_model_mac import kind_of
from training_mac.recipe.fields import Recipe, marked


MODULES = {"encoder": "audio_tower", "connector": "connector", "language_model": "language_model"}
# Decay rates, skips and step sizes of a state space. transformers takes the first two for matrices; shrinking them
# would change how long the state remembers.
NEVER_DECAYED = ("A_log", "D", "dt_bias")


def attach_adapter(
    model: MacForConditionalGeneration, recipes: Sequence[Recipe]
) -> MacForConditionalGeneration | PeftModel:
    """
    Add the LoRA layers that any stage trains; where no stage trains LoRA, give the model itself.

    Raises:
        ValueError: A part is 'lora' in one stage and 'full' in another, the stages' LoRA differs, a stage with LoRA
            learns tags or trains a teacher, or LoRA would stand where the language model cannot use it.
    """
    check_lora(recipes)
    ways = ways_to_train(recipes)
    adapted = [part for part in MODULES if "lora" in ways[part]]
    if not adapted:
        return model
    recipe = recipes[0]
    own = of_audio(recipe, model.config) if recipe.lora_by_modality else []
    targets = {"encoder": recipe.encoder_lora_targets, "language_model": [*recipe.lora_targets, *own]}
    patterns = [rf"model\.{MODULES[part]}\..*\.({'|'.join(map(re.escape, targets[part]))})" for part in adapted]
    if "language_model" in adapted:
        check_targets(model, recipe.lora_targets)
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=2 * recipe.lora_rank if recipe.lora_alpha is None else recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules="|".join(patterns),
        modules_to_save=None if learns_whole(recipes) else [MODULES[part] for part in MODULES if "full" in ways[part]],
    )
    return get_peft_model(model, config)


def of_audio(recipe: Recipe, config: MacConfig) -> list[str]:
    """
    List the layers of audio tokens that LoRA by modality adapts beside those of text.

    Raises:
        ValueError: Audio has no projections of its own that LoRA could adapt.
    """
    own = [f"{name}_audio" for name in recipe.lora_targets if name in (config.modality_projections or [])]
    if not own:
        raise ValueError(
            f"`lora_by_modality`: audio must have some of `lora_targets` ({', '.join(recipe.lora_targets)}) of "
            "its own: name them in `model.modality_projections`, which start as "
            "copies."
        )
    return own


def check_targets(model: MacForConditionalGeneration, targets: Sequence[str]) -> None:
    """Refuse LoRA on layers of the language model that would not learn through it, or cannot be merged with it."""
    language_model = model.model.language_model
    for name, _ in language_model.named_modules():
        for part, reason in kind_of(language_model.config).no_lora.items():
            if part in name and name.endswith(tuple(targets)):
                raise ValueError(
                    f"`lora_targets` names {name} of a {language_model.config.model_type!r} language model: {reason}."
                )


def ways_to_train(recipes: Sequence[Recipe]) -> dict[str, set[str]]:
    """Collect the ways in which the stages train each part: 'frozen', 'lora', 'full'."""
    return {part: {getattr(recipe, part) for recipe in recipes} for part in MODULES}


def check_lora(recipes: Sequence[Recipe]) -> None:
    """Refuse stages whose LoRA layers cannot be the same."""
    ways = ways_to_train(recipes)
    if any(recipe.lora_by_modality for recipe in recipes) and "lora" not in ways["language_model"]:
        raise ValueError("`lora_by_modality` is for a recipe whose `language_model` is 'lora'.")
    if not any("lora" in found for found in ways.values()):
        return
    for part in ways:
        if {"lora", "full"} <= ways[part]:
            raise ValueError(f"`{part}` is 'lora' in one stage and 'full' in another: choose one for all stages.")
    for name in marked("lora"):
        if any(getattr(recipe, name) != getattr(recipes[0], name) for recipe in recipes):
            raise ValueError(f"`{name}` differs between the stages: the LoRA layers are made once, for all of them.")
    added = recipes[0].base_model is not None and recipes[0].model.get("modality_projections")
    if added and not ends_whole(recipes):
        raise ValueError(
            "`model.modality_projections` adds layers that `base_model` does not have, so that an adapter could not "
            "be loaded onto it: set `merge_adapter: true`."
        )
    check_lora_sizes(recipes[0])
    if any(recipe.objective == "mohawk" for recipe in recipes):
        raise ValueError(
            "A recipe with LoRA cannot have `objective: mohawk`, whose mixers are new and learn in full. Adapt what "
            "comes of it in a run of its own, as `base_model`."
        )
    if any(recipe.objective not in ("captions", "distillation") for recipe in recipes):
        raise ValueError(
            "A recipe with LoRA cannot learn tags or have a teacher: they are for an encoder that starts from nothing."
        )


def check_lora_sizes(recipe: Recipe) -> None:
    """Refuse LoRA sizes that peft would refuse after the run has begun, or with which LoRA does nothing."""
    if recipe.lora_rank < 1:
        raise ValueError(f"`lora_rank` is {recipe.lora_rank}; expected at least 1. Without LoRA a part is 'full'.")
    if recipe.lora_alpha is not None and recipe.lora_alpha <= 0:
        raise ValueError(f"`lora_alpha` is {recipe.lora_alpha}; expected more than 0.")
    if not 0 <= recipe.lora_dropout < 1:
        raise ValueError(f"`lora_dropout` is {recipe.lora_dropout}; expected a share, from 0 to below 1.")


def check_lora_targets(recipes: Sequence[Recipe], config: MacConfig) -> None:
    """
    Refuse layers to adapt that the model does not have.

    Raises:
        ValueError: The model lacks some layers; the message names them, and the layers of that part.
    """
    ways, recipe = ways_to_train(recipes), recipes[0]
    targets = {"encoder": recipe.encoder_lora_targets, "language_model": recipe.lora_targets}
    if not any("lora" in ways[part] for part in targets):
        return
    with torch.device("meta"):
        model = MacForConditionalGeneration(config)
    for part, wanted in targets.items():
        inside = getattr(model.model, MODULES[part]).named_modules()
        layers = sorted({name.split(".")[-1] for name, module in inside if isinstance(module, nn.Linear)})
        missing = [target for target in wanted if target not in layers]
        if "lora" in ways[part] and (missing or not wanted):
            name = "lora_targets" if part == "language_model" else "encoder_lora_targets"
            raise ValueError(
                f"`{name}`: no {', '.join(missing) or 'layer'} to adapt; this model has {', '.join(layers)}."
            )


def learns_whole(recipes: Sequence[Recipe]) -> bool:
    """Whether the run learns a whole model: its language model trains in full, or there is no LoRA at all."""
    ways = {getattr(recipe, part) for recipe in recipes for part in MODULES}
    return "lora" not in ways or any(recipe.language_model == "full" for recipe in recipes)


def ends_whole(recipes: Sequence[Recipe]) -> bool:
    """Whether the run's folder will hold a whole model: what is learnt is one, or the adapter is merged at the end."""
    return learns_whole(recipes) or recipes[-1].merge_adapter


def module_to_train(model: MacForConditionalGeneration | PeftModel, recipes: Sequence[Recipe]) -> Any:
    """Give the module that the Trainer holds: peft's wrapper saves only the adapter, the wrapped model saves all."""
    return model.get_base_model() if isinstance(model, PeftModel) and learns_whole(recipes) else model


def part_of(name: str) -> str:
    """Name the part that a parameter belongs to; the output head belongs to the language model."""
    inside = next((part for part, module in MODULES.items() if f".{module}." in f".{name}"), None)
    return inside or "language_model"


def set_trainable(model: nn.Module, recipe: Recipe) -> None:
    """
    Mark what the stage trains as learning, and nothing else.

    Raises:
        ValueError: Every part is frozen.
    """
    for name, parameter in model.named_parameters():
        way, is_lora = getattr(recipe, part_of(name)), "lora_" in name
        # peft keeps the first weights of a part that trains in full as `original_module`; they must not learn.
        parameter.requires_grad_(way == ("lora" if is_lora else "full") and "original_module" not in name)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("`encoder`, `connector` and `language_model` are all 'frozen': nothing would train.")


def parameter_groups(
    model: nn.Module, recipe: Recipe, learning_rate: float, weight_decay: float, decayed: set[str]
) -> list[dict[str, Any]]:
    """
    Make the optimizer's groups, with each part's learning rate, which falls through the encoder's blocks.

    Args:
        model: Model whose parameters that learn are marked.
        recipe: Recipe of the stage.
        learning_rate: Learning rate of the parts without their own.
        weight_decay: Weight decay of the parameters in `decayed`; the others have none.
        decayed: Names of the parameters that decay, which are matrices; those of `NEVER_DECAYED` do not all the same.
    """
    depth = max([encoder_block(name) + 1 for name, _ in model.named_parameters()], default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = part_of(name)
        own = getattr(recipe, f"{part}_learning_rate")
        rate = learning_rate if own is None else own
        if part == "encoder":
            rate *= recipe.encoder_layer_decay ** (depth - 1 - encoder_block(name))
        decays = name in decayed and name.split(".")[-1] not in NEVER_DECAYED
        groups.setdefault((rate, weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def encoder_block(name: str) -> int:
    """Find the encoder's block that holds a parameter, from 0; -1 for its embeddings and for other parts."""
    match = re.search(r"audio_tower\.(?:.*\.)?layers\.(\d+)\.", name)
    return int(match[1]) if match else -1

"""Checks that refuse a run before anything is made, trained or pushed, instead of in its middle."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate.utils import parse_flag_from_env

from evaluation_mac.metrics.naming import Naming, load_naming
from evaluation_mac.metrics.scoring import METRICS
from modeling_mac.connector_mac import CONNECTORS
from modeling_mac.language_model_mac import TESTED, kind_of
from processing_mac.dataset_mac import Clip
from training_mac.data.check import read_and_check
from training_mac.data.tables import ClipTables
from training_mac.loop.adapters import MODULES, check_lora, check_lora_targets
from training_mac.loop.pruning import check_encoder, check_keep_rates
from training_mac.loop.validation import ERROR_RATES, score
from training_mac.objectives.tags import check_connector
from training_mac.recipe.data_fields import TWO, parse_sources
from training_mac.recipe.fields import MacTrainingArguments, Recipe
from training_mac.recipe.file import Stage
from training_mac.run.building import find_model, load_front
from training_mac.run.distilling import check_distillation, check_student_of
from training_mac.run.model_fields import check_model, check_student, is_made_of_teacher, read_config
from training_mac.run.options import check_options
from training_mac.run.towers import check_tower


# Sentence similarity needs an encoder of its own, so it is left out.
EVAL_METRICS = (*(name for name in METRICS if name != "sentence_similarity"), *ERROR_RATES)
WHOLE_MODEL = (
    "captions",
    "distillation",
    "mohawk",
)  # objectives that train a model that captions, not its encoder alone
STREAMED = "Shards are streamed, and a stream has no list of its recordings: name a manifest or a dataset instead."


def check_stages(stages: Sequence[Stage], tables: ClipTables) -> None:
    """
    Check the recipe and its data for all stages before the first one begins.

    Args:
        stages: Stages of the run, as `load_stages` gives them.
        tables: Tables that the clips of every source are written to.

    Raises:
        ValueError: A setting cannot do what it says, and is named; or the data is bad, and the message tells how.
        OSError: The base model is missing.
    """
    recipes = [stage.recipe for stage in stages]
    check_lora(recipes)
    check_keep_rates(recipes)
    if is_made_of_teacher(recipes[0]):
        check_student(recipes[0], stages[0].settings)
    else:
        check_origin(recipes[0], stages[0].settings)
        check_model(recipes[0])
    for stage in stages:
        with naming(stage, stages):
            check_fields(stage)
            check_options(stage)
            check_teachers(stage, stages)
            check_streams(stage)
    read_and_check([stage.data for stage in stages], tables, *load_front(recipes[0].base_model))
    for stage in stages:
        if stage.training.eval_strategy != "no":
            with naming(stage, stages):
                check_metrics(stage, tables.validation(stage.data))


def check_origin(recipe: Recipe, settings: Mapping[str, Any]) -> None:
    """
    Refuse a base model that is missing, settings that would undo what it has learnt, and settings that it overrides.

    Args:
        recipe: Recipe of the stage.
        settings: Fields as the recipe and the command line give them.
    """
    towers = ("base_audio_tower", "base_language_model")
    if (recipe.base_audio_tower is None) != (recipe.base_language_model is None) and not recipe.base_model:
        raise ValueError("`base_audio_tower` and `base_language_model` go together: give both or neither.")
    unread = [*towers, "tokenizer", "vocab_size"] if recipe.base_model else []
    if not recipe.base_model and (recipe.base_language_model or recipe.tokenizer):
        unread = ["vocab_size"]
    if found := [name for name in unread if settings.get(name) is not None]:
        beside = "`base_model`" if recipe.base_model else "the towers" if recipe.base_language_model else "`tokenizer`"
        raise ValueError(f"`{found[0]}` would not be read beside {beside}: leave one of them out.")
    for name in ("base_model", *towers, "tokenizer"):
        if getattr(recipe, name) is not None:
            find_model(name, getattr(recipe, name))
    trained = recipe.base_model or recipe.base_language_model
    if recipe.A_init_range is not None and trained is not None:
        raise ValueError(f"`A_init_range` is for a new language model; {trained} has learnt its decay rates.")
    if recipe.encoder_of is not None and (trained or recipe.base_audio_tower) is not None:
        raise ValueError(f"`encoder_of` is for a new model; {trained or recipe.base_audio_tower} has an encoder.")


@contextmanager
def naming(stage: Stage, stages: Sequence[Stage]) -> Iterator[None]:
    """Wrap the checks of one of several stages, so that errors say which stage it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Stage {stage.number}: {error}" if len(stages) > 1 else str(error)) from error


def check_fields(stage: Stage) -> None:
    """Refuse fields that do not go together."""
    recipe, training = stage.recipe, stage.training
    if recipe.cached_epochs and recipe.encoder != "frozen":
        raise ValueError("`cached_epochs` keeps what a frozen encoder says: it needs `encoder: frozen`.")
    if not 0 <= recipe.encoding_mix <= 0.5:
        raise ValueError(f"`encoding_mix` is {recipe.encoding_mix}; expected 0 to 0.5, the share of the lesser part.")
    if recipe.encoding_mix and not recipe.cached_epochs:
        raise ValueError("`encoding_mix` mixes encodings that are kept: it needs `cached_epochs`.")
    if stage.data.paraphrases and recipe.objective not in WHOLE_MODEL:
        raise ValueError(f"`paraphrases` are of captions, and `objective: {recipe.objective}` learns none.")
    if recipe.max_text_tokens is not None and recipe.objective not in WHOLE_MODEL:
        raise ValueError(f"`max_text_tokens` cuts texts; `objective: {recipe.objective}` learns from none.")
    if recipe.max_text_tokens is not None and recipe.max_text_tokens < 1:
        raise ValueError(f"`max_text_tokens` is {recipe.max_text_tokens}; expected at least 1.")
    if recipe.cache_encodings and not recipe.cached_epochs:
        raise ValueError("`cache_encodings` keeps what a frozen encoder says: it needs `cached_epochs`.")
    check_sharding(recipe, training)
    if training.save_strategy == "best" and training.eval_strategy == "no":
        raise ValueError("`save_strategy: best` keeps nothing without validation: it needs `eval_strategy`.")
    if recipe.average_checkpoints:
        check_averaging(recipe, training)
    check_targets(stage)
    check_distillation(stage)
    if recipe.objective in WHOLE_MODEL and all(getattr(recipe, part) == "frozen" for part in MODULES):
        raise ValueError("`encoder`, `connector` and `language_model` are all 'frozen': nothing would train.")
    if recipe.encoder == "frozen" and recipe.objective in ("tags", "embeddings", "masked_patches"):
        raise ValueError(f"`encoder: frozen`: nothing else learns by `objective: {recipe.objective}`.")
    if training.dataloader_persistent_workers:
        raise ValueError("`dataloader_persistent_workers` would draw the first epoch's examples in all epochs.")
    if recipe.early_stopping_patience is not None and not (
        training.metric_for_best_model and training.load_best_model_at_end
    ):
        raise ValueError("`early_stopping_patience` needs `metric_for_best_model` and `load_best_model_at_end: true`.")
    if training.eval_strategy != "no" and recipe.objective not in WHOLE_MODEL:
        raise ValueError(f"`eval_strategy` validates captions; of `objective: {recipe.objective}` there are none.")
    if training.eval_strategy != "no" and not stage.data.eval_data:
        raise ValueError("`eval_strategy` asks for validation, but no data to validate on is given.")


def check_sharding(recipe: Recipe, training: MacTrainingArguments) -> None:
    """Refuse to split networks over GPUs that are small and are handed on as a whole."""
    flags = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # variables that `accelerate launch` sets
    if recipe.objective != "captions" and (
        training.fsdp or training.deepspeed or any(map(parse_flag_from_env, flags))
    ):
        raise ValueError(
            f"`objective: {recipe.objective}` cannot train under FSDP or DeepSpeed, which hold a part of the network "
            "on each GPU. Train these stages in a run without them, and name its folder as `base_model` of the next."
        )


def check_averaging(recipe: Recipe, training: MacTrainingArguments) -> None:
    """Refuse to average checkpoints that are not written or not kept."""
    if recipe.objective not in ("tags", "embeddings", "masked_patches"):
        raise ValueError(f"`average_checkpoints` is for an encoder alone, not for `objective: {recipe.objective}`.")
    kept = 0 if training.save_strategy == "no" else training.save_total_limit or math.inf
    if kept < recipe.average_checkpoints:
        raise ValueError(
            f"`average_checkpoints` is {recipe.average_checkpoints}, but `save_strategy` and `save_total_limit` keep "
            f"{kept}."
        )


def check_cross_fitting(stage: Stage) -> None:
    """Refuse a language model that cannot learn from the tags that others tell, and tags that nothing tells."""
    recipe, parts = stage.recipe, stage.recipe.cross_fitted_tags
    if recipe.certain_tags and not parts:
        raise ValueError("`certain_tags` are those that `cross_fitted_tags` leaves as they are: it is not given.")
    if not parts:
        return
    if parts < 3:
        raise ValueError(f"`cross_fitted_tags` is {parts}; expected 0, or 3 parts or more.")
    if recipe.objective != "captions" or not recipe.cached_epochs:
        raise ValueError("`cross_fitted_tags` changes encodings that are kept: it needs captions and `cached_epochs`.")
    if recipe.connector != "frozen":
        raise ValueError("`cross_fitted_tags` needs `connector: frozen`, which holds the scores of the tags.")
    if not recipe.teacher_targets:
        raise ValueError("`teacher_targets` is missing: `cross_fitted_tags` tells the tags that they hold.")


def check_targets(stage: Stage) -> None:
    """Refuse targets that no objective reads, missing targets, and recordings unlike those the teacher heard."""
    objective, targets = stage.recipe.objective, stage.recipe.teacher_targets
    check_cross_fitting(stage)
    if targets and objective != "embeddings" and not stage.recipe.cross_fitted_tags:
        raise ValueError(f"`teacher_targets` are for `objective: embeddings`, not for {objective!r}.")
    if stage.recipe.continue_tags and objective != "embeddings":
        raise ValueError(f"`continue_tags` is for `objective: embeddings`, not for {objective!r}.")
    if not targets and objective == "embeddings":
        raise ValueError("`teacher_targets` is missing: `objective: embeddings` imitates what they hold.")
    if not targets:
        return
    off = (*TWO, "tempo", "pitch", "time_shift", "repeat_probability")
    changed = [name for name in off if getattr(stage.data, name)]
    changed += ["min_excerpt"] if stage.data.min_excerpt < 1 else []
    if changed:
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in changed)}: the teacher heard each recording as it is, so what reads "
            "`teacher_targets` may change its level and its spectrum only."
        )
    if objective == "embeddings" and stage.data.max_windows != 1:
        raise ValueError("`objective: embeddings` learns from windows: say `max_windows: 1`.")
    if missing := [path for path in targets if not Path(path).is_file()]:
        raise ValueError(
            f"{missing[0]}: no such file; expected the targets of a teacher (see recipes/mix_everyday.py)."
        )


def check_teachers(stage: Stage, stages: Sequence[Stage]) -> None:
    """Refuse to imitate teachers if no earlier stage has trained one."""
    before = [other for other in stages if other.number < stage.number]
    if stage.recipe.imitate_teachers and not any(other.recipe.objective == "teacher" for other in before):
        raise ValueError("`imitate_teachers`: there is no teacher; a stage with `objective: teacher` must come first.")


def check_streams(stage: Stage) -> None:
    """Refuse shards where a list of all recordings is needed, and settings that an endless stream cannot have."""
    recipe, data, training = stage.recipe, stage.data, stage.training
    if any(source.format == "webdataset" for source in parse_sources(data.eval_data, data)):
        raise ValueError(f"`eval_data`: {STREAMED}")
    sources = parse_sources(data.train_data, data)
    if not any(source.format == "webdataset" for source in sources):
        return
    if len(sources) > 1:
        raise ValueError("`train_data`: shards are streamed, and a stream cannot be mixed with other sources.")
    if training.max_steps <= 0:
        raise ValueError("`max_steps` is missing: `train_data` names shards, and a stream has no end.")
    if stage.number == 1 and recipe.base_model is None and recipe.base_audio_tower is None:
        raise ValueError(
            f"A new model's tokenizer is made of all captions: give `base_model`, or the towers. {STREAMED}"
        )
    listed = {
        "objective": recipe.objective not in WHOLE_MODEL,
        "cached_epochs": recipe.cached_epochs > 0,
        "cache_features": data.cache_features is not None,
        "train_sampling_strategy": training.train_sampling_strategy == "group_by_length",
    }
    if needing := [f"`{name}`" for name, needed in listed.items() if needed]:
        raise ValueError(f"{', '.join(needing)}: {STREAMED}")


def check_base(stages: Sequence[Stage], base: str) -> None:
    """
    Refuse layers to adapt, objectives, pruning or packing that the base model, which exists by now, cannot have.

    Raises:
        ValueError: `check_lora_targets`, `check_encoder`, `check_tower`, `check_connector`, `check_packing` or
            `check_student_of` refuses a stage.
    """
    config, recipes = read_config(base), [stage.recipe for stage in stages]
    check_lora_targets(recipes, config)
    check_encoder(config.audio_config, recipes)
    for stage in stages:
        with naming(stage, stages):
            check_tower(stage, config.audio_config)
            if stage.recipe.objective in ("tags", "embeddings"):  # which hand over to the connector at their end
                check_connector(CONNECTORS[config.connector_type])
    check_packing(stages, base)
    for stage in stages:
        if stage.recipe.distill_from:
            with naming(stage, stages):
                check_student_of(stage.recipe.distill_from, stage.recipe.objective, base)


def check_packing(stages: Sequence[Stage], base: str) -> None:
    """
    Refuse packing with a language model that would read packed clips as one.

    Args:
        stages: Stages of the run.
        base: Folder or Hub id of the model that the run starts from, which exists by now.

    Raises:
        ValueError: The language model cannot keep packed sequences apart, or is none that MAC can run.
    """
    if not any(stage.recipe.packing and stage.recipe.objective in WHOLE_MODEL for stage in stages):
        return
    config = read_config(base).text_config
    if not kind_of(config).packs:
        able = " or ".join(repr(name) for name, kind in TESTED.items() if kind.packs)
        raise ValueError(
            f"`packing` needs a language model that keeps packed clips apart by `seq_idx`: {able}; this one is "
            f"{config.model_type!r}."
        )


def check_metrics(stage: Stage, clips: Sequence[Clip]) -> None:
    """Refuse metrics that do not exist, cannot run here, or cannot be computed on these clips."""
    metrics, best = stage.recipe.eval_metrics, stage.training.metric_for_best_model
    if unknown := [name for name in metrics if name not in EVAL_METRICS]:
        raise ValueError(f"`eval_metrics`: no {', '.join(unknown)}; possible are {', '.join(EVAL_METRICS)}.")
    naming = load_naming(stage.recipe.naming) if stage.recipe.naming else None
    possible = ["loss", *try_metrics(clips, metrics, naming)]
    if naming and "naming_accuracy" not in possible:
        raise ValueError(f"`naming`: no clip of `eval_data` has a `source` that is one of {naming.collection}.")
    if best and best.removeprefix("eval_") not in possible:
        raise ValueError(
            f"`metric_for_best_model`: no {best!r} with these `eval_metrics` and `eval_data`; possible are "
            f"{', '.join(possible)}."
        )


def try_metrics(clips: Sequence[Clip], metrics: Sequence[str], naming: Naming | None) -> dict[str, Any]:
    """Score one or two references as if they were captions, to learn the names of the scores and whether Java runs."""
    sample = [clips[0], *islice((clip for clip in clips if naming and naming.is_scored(clip.source)), 1)]
    return score(sample, [clip.captions[0] for clip in sample], metrics, naming)

"""Stages with a teacher: fields that such a stage needs, fields that it would not follow, and whether the two fit."""

from processing_mac import MacProcessor
from training_mac.objectives.distillation import check_teacher
from training_mac.recipe.file import Stage
from training_mac.run.building import find_model
from training_mac.run.model_fields import read_config


OF_IMITATION = ("distill_temperature", "distill_weight", "distill_hidden_weight")
# What the first stages of MOHAWK train, whatever the recipe says of the parts.
WAYS_OF_BLOCKS = {"encoder": "frozen", "connector": "frozen", "language_model": "full"}
RATES_OF_OTHERS = ("encoder_learning_rate", "encoder_layer_decay", "connector_learning_rate")


def check_distillation(stage: Stage) -> None:
    """
    Refuse a teacher that nothing would read, a missing one, numbers that make no loss, and what a stage ignores.

    Raises:
        ValueError: There is such a field; the message names it and says what to do.
    """
    recipe, training, settings = stage.recipe, stage.training, stage.settings
    objective, taught = recipe.objective, recipe.objective in ("distillation", "mohawk")
    if (recipe.distill_from is not None) != taught:
        raise ValueError(
            "`distill_from` names the teacher of `objective: distillation` or `mohawk`: give both or neither."
        )
    of_others = [] if taught else list(OF_IMITATION)
    of_others += [] if objective == "mohawk" else ["mohawk_stage"]
    if given := [name for name in of_others if settings.get(name) is not None]:
        raise ValueError(
            f"`{given[0]}` does nothing for `objective: {objective}`: say it in the stage that it is for."
        )
    if recipe.distill_from is None:
        return
    find_model("distill_from", recipe.distill_from)
    if objective == "mohawk" and recipe.mohawk_stage != "logits":
        check_blocks(stage)
    if recipe.distill_temperature <= 0:
        raise ValueError(f"`distill_temperature` is {recipe.distill_temperature}; expected more than 0.")
    if not 0 <= recipe.distill_weight <= 1:
        raise ValueError(f"`distill_weight` is {recipe.distill_weight}; expected a share, from 0 to 1.")
    if recipe.distill_hidden_weight < 0:
        raise ValueError(f"`distill_hidden_weight` is {recipe.distill_hidden_weight}; expected 0 or more.")
    if not recipe.distill_weight and not recipe.distill_hidden_weight:
        raise ValueError("`distill_weight` and `distill_hidden_weight` are 0: nothing would be imitated.")
    if training.label_smoothing_factor:
        raise ValueError("`label_smoothing_factor` cannot stand beside a teacher, whose answers are soft already.")


def check_blocks(stage: Stage) -> None:
    """Refuse in a stage that compares blocks what is about other parts, about captions, or about logits."""
    name, settings = f"mohawk_stage: {stage.recipe.mohawk_stage}", stage.settings
    elsewhere = "say it in the stage `mohawk_stage: logits`"
    for part, way in WAYS_OF_BLOCKS.items():
        if settings.get(part, way) != way:
            raise ValueError(
                f"`{part}: {settings[part]}`: `{name}` trains the mixers of the language model and nothing else; "
                f"leave it out, or {elsewhere}."
            )
    if given := [field for field in (*OF_IMITATION, *RATES_OF_OTHERS) if settings.get(field) is not None]:
        raise ValueError(f"`{given[0]}` does nothing in `{name}`, which compares blocks: {elsewhere}.")


def check_student_of(teacher: str, objective: str, base: str) -> None:
    """
    Refuse a teacher whose tokens differ from those of the student, and for MOHAWK a student that it did not make.

    Args:
        teacher: Folder or Hub id of the teacher.
        objective: Objective of the stage.
        base: Folder or Hub id of the model that the run starts from, which exists by now.
    """
    check_teacher(MacProcessor.from_pretrained(base), MacProcessor.from_pretrained(teacher), teacher)
    if objective != "mohawk":
        return
    student, source = read_config(base).text_config, read_config(teacher).text_config
    if student.model_type != "mac_discrete_mamba2":
        raise ValueError(
            "`objective: mohawk` trains a 'mac_discrete_mamba2' language model, which a run whose first stage has it, "
            f"without `base_model`, makes of `distill_from`; this one is {student.model_type!r}."
        )
    ours = (student.source["model_type"], student.num_hidden_layers, student.hidden_size)
    if ours != (source.model_type, source.num_hidden_layers, source.hidden_size):
        raise ValueError(
            f"`distill_from`: {teacher} is not the {ours[0]!r} of {ours[1]} layers of {ours[2]} that the student came "
            f"from, but a {source.model_type!r} of {source.num_hidden_layers} layers of {source.hidden_size}."
        )

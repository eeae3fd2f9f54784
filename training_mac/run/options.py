"""
Options of transformers' TrainingArguments that a training here could not follow, each refused in a sentence.

transformers' Trainer reads them from its own evaluation loop, sampler or model class. A captioner is validated by its
captions, its order derives from seed and epoch, and an encoder that learns alone is no model of transformers: there
an option would be accepted and change nothing, or fail in the middle of a run.
"""

from dataclasses import MISSING, Field, fields
from typing import Any

from training_mac.recipe.fields import MacTrainingArguments
from training_mac.recipe.file import Stage


OF_TRANSFORMERS_EVALUATION = "validation captions the recordings, and has no such loop: leave it out"
NEVER = {
    "use_liger_kernel": "the Liger kernels know no MAC and would replace nothing; Mamba-2 has kernels of its own",
    "liger_kernel_config": "the Liger kernels know no MAC and would replace nothing",
    "remove_unused_columns": "must stay false: the collator reads columns that the model does not",
    "label_names": "the labels of every objective are known: leave it out",
    "length_column_name": "lengths come from the recordings' own durations: leave it out",
    "data_seed": "the order of the data derives from `seed` and the epoch: set `seed`",
    "optim_target_modules": "the parts have learning rates and groups of their own, which GaLore and Apollo replace",
    **dict.fromkeys(
        (
            "prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps",
            "include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval",
        ),
        OF_TRANSFORMERS_EVALUATION,
    ),
    "do_predict": "`mac-train` trains; `mac-eval` predicts",
}  # fmt: skip
# Options by which the Trainer reaches into a causal model of transformers.
OF_CAPTIONS = {  # and why not of an encoder alone
    "label_smoothing_factor": "its labels are no tokens; tags are smoothed by 0.1 as they are",
    "neftune_noise_alpha": "it has no embedding of tokens to add noise to",
    "include_num_input_tokens_seen": "it reads windows, and no tokens",
    # By its older name, too, `gradient_checkpointing`, which transformers copies to this one.
    "activation_checkpointing": "it is small, and keeps all activations; nor does `gradient_checkpointing`",
    "torch_compile": "the number of its spans changes from step to step",
}
BESIDE_A_TEACHER = "the Trainer would reach for it into a causal model, which stands beside its teacher here"
OFF: tuple[Any, ...] = (None, False, 0, 0.0, "no", "", [])  # values by which an option asks for nothing


def check_options(stage: Stage) -> None:
    """
    Refuse options of `TrainingArguments` that this stage would ignore, or could not follow.

    Raises:
        ValueError: There is such an option; the message names it and says why.
    """
    training, objective = stage.training, stage.recipe.objective
    for name, reason in NEVER.items():
        if differs(training, name):
            raise ValueError(f"`{name}`: {reason}.")
    if objective != "captions":
        for name, reason in OF_CAPTIONS.items():
            if differs(training, name):
                reason = BESIDE_A_TEACHER if stage.recipe.distill_from else reason
                raise ValueError(f"`{name}` does nothing for `objective: {objective}`: {reason}.")
    if objective == "teacher" and training.train_sampling_strategy == "group_by_length":
        raise ValueError("`train_sampling_strategy`: a teacher hears excerpts of one length, which need no groups.")
    if training.eval_on_start and training.eval_strategy == "no":
        raise ValueError("`eval_on_start` asks for validation, and `eval_strategy` for none.")
    if training.save_only_model and training.save_strategy != "no":
        raise ValueError(
            "`save_only_model` would leave the optimizer's state out of the checkpoints, and a run that was stopped "
            "would go on to another model than one that was not. `save_total_limit` saves space, too."
        )
    if stage.recipe.packing and training.neftune_noise_alpha:
        raise ValueError("`neftune_noise_alpha` scales its noise by a row's length, which `packing` changes.")


def differs(training: MacTrainingArguments, name: str) -> bool:
    """Whether an option asks for something other than its default does."""
    if not hasattr(training, name):  # a name of some versions of transformers alone
        return False
    value, usual = getattr(training, name), default_of(name)
    return value != usual and not (value in OFF and usual in OFF)


def default_of(name: str) -> Any:
    """Give the default of an option."""
    entry: Field = next(entry for entry in fields(MacTrainingArguments) if entry.name == name)
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default

"""Trains one stage by its objective, from the result of the stage before to a result of its own."""

from accelerate import PartialState
from transformers import set_seed

from training_mac.data.tables import ClipTables
from training_mac.loop.adapters import learns_whole, module_to_train
from training_mac.loop.averaging import mean_weights
from training_mac.loop.checkpoints import whole_checkpoints
from training_mac.loop.pruning import KeepRateSchedule
from training_mac.objectives.captions import make_caption_trainer
from training_mac.objectives.distillation import make_distillation_trainer
from training_mac.objectives.embeddings import make_embedding_trainer
from training_mac.objectives.masked_patches import make_masked_patch_trainer
from training_mac.objectives.materials import Materials
from training_mac.objectives.mohawk import make_mohawk_trainer
from training_mac.objectives.tags import make_tag_trainer
from training_mac.objectives.teacher import make_teacher_trainer
from training_mac.recipe.file import Stage
from training_mac.run.folder import Run, gather_weights, learnt_weights


OBJECTIVES = {
    "teacher": make_teacher_trainer,
    "tags": make_tag_trainer,
    "embeddings": make_embedding_trainer,
    "masked_patches": make_masked_patch_trainer,
    "captions": make_caption_trainer,
    "distillation": make_distillation_trainer,
    "mohawk": make_mohawk_trainer,
}


def train_stage(run: Run, stage: Stage, tables: ClipTables) -> None:
    """Train a stage to its result, from the result of the stage before or from its own last whole checkpoint."""
    set_seed(stage.training.seed)
    adapted, processor = run.load(after=stage.number - 1)
    processor.default_prompt = stage.data.prompt or processor.default_prompt
    model = module_to_train(adapted, run.recipes)
    teachers = run.teachers(before=stage.number) if stage.recipe.imitate_teachers else []
    materials = Materials(model, processor, tables, run.stage_folder(stage.number), teachers)
    trainer = OBJECTIVES[stage.recipe.objective](stage, materials)
    if stage.recipe.keep_rate is not None:
        config = model.config.audio_config
        trainer.add_callback(KeepRateSchedule(config, stage.recipe.keep_rate, stage.recipe.keep_rate_span))
    trainer.train(resume_from_checkpoint=stage.training.resume_from_checkpoint or run.last_checkpoint(stage))
    trainer.save_state()
    if stage.recipe.average_checkpoints:
        PartialState().wait_for_everyone()  # so that the last checkpoint is written before it is read
        latest = whole_checkpoints(run.stage_folder(stage.number))[: stage.recipe.average_checkpoints]
        trainer.model.load_state_dict(mean_weights(latest))
        PartialState().print(f"Stage {stage.number} ends with the mean of {', '.join(path.name for path in latest)}.")
    if stage.recipe.objective in ("tags", "embeddings"):
        trainer.model.hand_over(model.model.connector)
    teacher = learnt_weights(trainer.model.state_dict(), True) if stage.recipe.objective == "teacher" else None
    run.save_result(stage, learnt_weights(gather_weights(trainer, model), learns_whole(run.recipes)), teacher)

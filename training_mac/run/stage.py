"""One stage of training: a teacher or the encoder on tags, or the parts that the recipe names on captions."""

from itertools import islice
from typing import Any

from accelerate import PartialState
from torch.utils.data import Subset, default_collate
from transformers import EarlyStoppingCallback, set_seed

from modeling_mac import MacForConditionalGeneration
from training_mac.data.stage_data import read_eval_clips
from training_mac.examples.collating import TrainingCollator
from training_mac.examples.encoded import EncodedExamples
from training_mac.examples.training_set import make_training_set
from training_mac.loop.adapters import learns_whole, module_to_train, set_trainable
from training_mac.loop.averaging import mean_weights
from training_mac.loop.checkpoints import whole_checkpoints
from training_mac.loop.trainer import CaptionTrainer, MacTrainer
from training_mac.objectives.tags import SpanCollator, SpanTagger, list_sources
from training_mac.objectives.teacher import ConvTagger, MixtureDataset
from training_mac.objectives.whitening import whiten_patches
from training_mac.recipe.file import Stage
from training_mac.run.folder import Run, gather_weights, learnt_weights


def train_stage(run: Run, stage: Stage) -> None:
    """Train a stage from the result of the one before, or from its own last whole checkpoint, to its result."""
    set_seed(stage.training.seed)
    adapted, processor = run.load(after=stage.number - 1)
    processor.default_prompt = stage.data.prompt or processor.default_prompt
    model = module_to_train(adapted, run.recipes)
    trainer = TRAINERS[stage.recipe.objective](run, stage, model, processor)
    trainer.train(resume_from_checkpoint=stage.training.resume_from_checkpoint or run.last_checkpoint(stage))
    trainer.save_state()
    if stage.recipe.average_checkpoints:
        PartialState().wait_for_everyone()  # until the last one is written
        latest = whole_checkpoints(run.stage_folder(stage.number))[: stage.recipe.average_checkpoints]
        trainer.model.load_state_dict(mean_weights(latest))
        PartialState().print(f"Stage {stage.number} ends with the mean of {', '.join(path.name for path in latest)}.")
    if stage.recipe.objective == "tags":
        trainer.model.hand_over(model.model.connector)
    teacher = learnt_weights(trainer.model.state_dict(), True) if stage.recipe.objective == "teacher" else None
    run.save_result(stage, learnt_weights(gather_weights(trainer, model), learns_whole(run.recipes)), teacher)


def make_teacher_trainer(run: Run, stage: Stage, model: MacForConditionalGeneration, processor: Any) -> MacTrainer:
    """Trains the network that the encoder will imitate."""
    scenes: Any = make_training_set(stage.data, processor, stage.training.seed)
    sources = list_sources(list(scenes.clips))
    rows = list(scenes.readable_rows())
    clips = [scenes.clips[row] for row in rows]
    log_mels: Any = Subset(scenes.log_mels, rows)
    return MacTrainer(
        ConvTagger(len(sources), stage.recipe.teacher_width),
        stage.training,
        recipe=stage.recipe,
        train_dataset=MixtureDataset(clips, log_mels, sources, scenes.scenes, stage.training.seed),
        data_collator=default_collate,
    )


def make_tag_trainer(run: Run, stage: Stage, model: MacForConditionalGeneration, processor: Any) -> MacTrainer:
    """Trains the encoder alone."""
    scenes: Any = make_training_set(stage.data, processor, stage.training.seed)
    sources = list_sources(list(scenes.clips))
    tower = model.model.audio_tower
    if stage.recipe.whiten:
        extractor = scenes.extractor
        log_mels = (scenes.log_mels[row][:480].float() for row in islice(scenes.readable_rows(), 500))
        sample = [(log_mel - extractor.mean) / extractor.scale for log_mel in log_mels]
        whiten_patches(tower.embeddings, sample)
    weights = run.teachers(before=stage.number) if stage.recipe.imitate_teachers else []
    teachers = [ConvTagger.from_weights(each) for each in weights]
    return MacTrainer(
        SpanTagger(tower, len(sources), stage.recipe.kept_patches, teachers),
        stage.training,
        recipe=stage.recipe,
        train_dataset=scenes,
        data_collator=SpanCollator(sources, tower.config.patch_size),
    )


def make_caption_trainer(run: Run, stage: Stage, model: Any, processor: Any) -> CaptionTrainer:
    """Trains the parts that the stage names, on captions or on answers to questions."""
    recipe = stage.recipe
    set_trainable(model, recipe)
    train_dataset: Any = make_training_set(stage.data, processor, stage.training.seed)
    if recipe.cached_epochs:
        tower = next(module for name, module in model.named_modules() if name.split(".")[-1] == "audio_tower")
        file = run.stage_folder(stage.number) / f"encoded-{stage.training.process_index}.npy"
        train_dataset = EncodedExamples(
            train_dataset,
            tower,
            recipe.cached_epochs,
            file,
            mix=recipe.encoding_mix,
            seed=stage.training.seed,
            device=stage.training.device,
        )
    patience = recipe.early_stopping_patience
    return CaptionTrainer(
        model,
        stage.training,
        recipe=recipe,
        train_dataset=train_dataset,
        data_collator=TrainingCollator(processor, recipe.loss_on, recipe.packing),
        eval_clips=read_eval_clips(stage.data, processor.feature_extractor)
        if stage.training.eval_strategy != "no"
        else [],
        processor=processor,
        callbacks=None if patience is None else [EarlyStoppingCallback(patience)],
    )


TRAINERS = {"teacher": make_teacher_trainer, "tags": make_tag_trainer, "captions": make_caption_trainer}

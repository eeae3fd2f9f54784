"""The objective of captioning, or of answering questions: the parts that the recipe names learn from texts."""

from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback

from training_mac.examples.collating import TrainingCollator
from training_mac.examples.encoded import EncodedExamples
from training_mac.examples.training_set import make_training_set
from training_mac.loop.adapters import set_trainable
from training_mac.loop.trainer import CaptionTrainer
from training_mac.objectives.evidence import evidence_of_others
from training_mac.objectives.materials import Materials
from training_mac.recipe.file import Stage


def make_caption_trainer(stage: Stage, materials: Materials) -> CaptionTrainer:
    """Make a trainer of the parts that the stage names."""
    return CaptionTrainer(**caption_trainer_parts(stage, materials))


def caption_trainer_parts(stage: Stage, materials: Materials) -> dict[str, Any]:
    """Set what of the model trains, and give the arguments of a `CaptionTrainer`."""
    recipe, training, processor = stage.recipe, stage.training, materials.processor
    set_trainable(materials.model, recipe)
    examples: Any = make_training_set(stage.data, processor, training.seed, materials.tables)
    if recipe.cached_epochs:
        examples = encode(examples, stage, materials.model, materials.scratch)
    validates = training.eval_strategy != "no"
    patience = recipe.early_stopping_patience
    eval_clips = materials.tables.readable_validation(stage.data, processor.feature_extractor) if validates else []
    return {
        "model": materials.model,
        "args": training,
        "recipe": recipe,
        "train_dataset": examples,
        "data_collator": TrainingCollator(processor, recipe.loss_on, recipe.packing, recipe.max_text_tokens),
        "eval_clips": eval_clips,
        "processor": processor,
        "callbacks": None if patience is None else [EarlyStoppingCallback(patience)],
    }


def encode(examples: Any, stage: Stage, model: Any, scratch: Path) -> EncodedExamples:
    """Encode the examples with the model's frozen encoder, for `cached_epochs` epochs."""
    return EncodedExamples(
        examples,
        next(module for name, module in model.named_modules() if name.split(".")[-1] == "audio_tower"),
        stage.recipe.cached_epochs,
        scratch / f"encoded-{stage.training.process_index}.npy",
        mix=stage.recipe.encoding_mix,
        seed=stage.training.seed,
        device=stage.training.device,
        folder=Path(stage.recipe.cache_encodings) if stage.recipe.cache_encodings else None,
        change=evidence_of_others(stage, model.model, examples),
    )

"""One stage of training: the encoder on tags, or the whole model on captions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from modeling_mac import MacForConditionalGeneration
from processing_mac import AudioCaptioningPipeline, MacProcessor
from processing_mac.dataset_mac import CaptionCollator, Clip
from training_mac.recipe import Recipe
from training_mac.tagging import SpanCollator, SpanTagger, list_sources
from training_mac.trainer import CaptionTrainer, MacTrainer
from training_mac.whitening import whiten_patches


def make_tag_trainer(
    recipe: Recipe, training: TrainingArguments, model: MacForConditionalGeneration, scenes: Any
) -> Trainer:
    """Trains the encoder alone."""
    sources = list_sources(list(scenes.clips))
    tower = model.model.audio_tower
    if recipe.whiten:
        extractor = scenes.extractor
        sample = [(log_mel[:480].float() - extractor.mean) / extractor.scale for log_mel in scenes.log_mels[:500]]
        whiten_patches(tower.embeddings, sample)
    return MacTrainer(
        SpanTagger(tower, len(sources), recipe.kept_patches),
        training,
        train_dataset=scenes,
        data_collator=SpanCollator(sources, tower.config.patch_size),
    )


def make_caption_trainer(
    recipe: Recipe,
    training: TrainingArguments,
    model: MacForConditionalGeneration,
    processor: MacProcessor,
    scenes: Dataset,
    eval_clips: Sequence[Clip],
) -> Trainer:
    """Trains the whole model, or all but a frozen encoder."""
    if recipe.encoder not in ("full", "frozen"):
        raise ValueError(f"`encoder` is {recipe.encoder!r}; expected 'full' or 'frozen'.")
    model.model.audio_tower.requires_grad_(recipe.encoder == "full")
    return CaptionTrainer(
        model,
        training,
        train_dataset=scenes,
        data_collator=CaptionCollator(processor),
        eval_clips=eval_clips,
        processor=processor,
        encoder_learning_rate=recipe.encoder_learning_rate,
    )


def save(model: MacForConditionalGeneration, processor: MacProcessor, folder: Path, store_float16: bool) -> None:
    """Write the folder that goes to the Hub; in float16, if asked, that loads as float32."""
    pipeline = AudioCaptioningPipeline(model, processor=processor, task="audio-captioning", device="cpu")
    if store_float16:
        model.half()
    pipeline.save_pretrained(folder)
    if store_float16:
        mark_float32(folder / "config.json")


def mark_float32(config_file: Path) -> None:
    """Have `from_pretrained` load the weights as float32: float16 is several times slower on a CPU."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    for part in (config, config["audio_config"], config["text_config"]):
        part["dtype"] = "float32"
    temporary = config_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(config_file)

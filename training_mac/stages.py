"""One stage of training: a teacher or the encoder on tags, or the whole model on captions."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import default_collate
from transformers import Trainer, TrainingArguments

from modeling_mac import MacForConditionalGeneration
from processing_mac import AudioCaptioningPipeline, MacProcessor
from processing_mac.dataset_mac import CaptionCollator, Clip
from training_mac.encoded import EncodedScenes
from training_mac.recipe import Recipe
from training_mac.scenes import SceneDataset
from training_mac.tagging import SpanCollator, SpanTagger, list_sources
from training_mac.teacher import ConvTagger, MixtureDataset
from training_mac.trainer import CaptionTrainer, MacTrainer
from training_mac.whitening import whiten_patches


def make_scenes(
    recipe: Recipe, training: TrainingArguments, clips: Sequence[Clip], log_mels: list[torch.Tensor], extractor
) -> SceneDataset:
    """The training windows of a stage."""
    return SceneDataset(
        clips, log_mels, extractor, recipe.join_probability, recipe.overlay_probability, seed=training.seed
    )


def teacher_file(training: TrainingArguments) -> Path:
    """Where the stages of a run keep their teacher."""
    return Path(training.output_dir).parent / "teacher.safetensors"


def make_teacher_trainer(recipe: Recipe, training: TrainingArguments, scenes: SceneDataset) -> Trainer:
    """Trains the network that the encoder will imitate."""
    sources = list_sources(list(scenes.clips))
    mixtures = MixtureDataset(scenes.clips, scenes.log_mels, sources, scenes.extractor, seed=training.seed)
    return MacTrainer(
        ConvTagger(len(sources), recipe.teacher_width), training, train_dataset=mixtures, data_collator=default_collate
    )


def save_teacher(teacher: ConvTagger, file: Path) -> None:
    """For the stages that imitate it."""
    temporary = file.with_suffix(".tmp")
    save_file({name: weight.contiguous() for name, weight in teacher.state_dict().items()}, temporary)
    temporary.replace(file)


def load_teacher(file: Path, num_sources: int, width: int) -> ConvTagger:
    """
    A teacher as `save_teacher` wrote it.

    Raises:
        ValueError: there is none.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no teacher to imitate; a stage with `objective: teacher` must come first.")
    teacher = ConvTagger(num_sources, width)
    teacher.load_state_dict(load_file(file))
    return teacher


def make_tag_trainer(
    recipe: Recipe, training: TrainingArguments, model: MacForConditionalGeneration, scenes: SceneDataset
) -> Trainer:
    """Trains the encoder alone."""
    sources = list_sources(list(scenes.clips))
    teacher = None
    if recipe.imitate_teacher:
        teacher = load_teacher(teacher_file(training), len(sources), recipe.teacher_width)
    tower = model.model.audio_tower
    if recipe.whiten:
        extractor = scenes.extractor
        sample = [(log_mel[:480].float() - extractor.mean) / extractor.scale for log_mel in scenes.log_mels[:500]]
        whiten_patches(tower.embeddings, sample)
    return MacTrainer(
        SpanTagger(tower, len(sources), recipe.kept_patches, teacher),
        training,
        train_dataset=scenes,
        data_collator=SpanCollator(sources, tower.config.patch_size),
    )


def make_caption_trainer(
    recipe: Recipe,
    training: TrainingArguments,
    model: MacForConditionalGeneration,
    processor: MacProcessor,
    scenes: SceneDataset,
    eval_clips: Sequence[Clip],
) -> Trainer:
    """Trains the whole model, or all but a frozen encoder."""
    if recipe.encoder not in ("full", "frozen"):
        raise ValueError(f"`encoder` is {recipe.encoder!r}; expected 'full' or 'frozen'.")
    model.model.audio_tower.requires_grad_(recipe.encoder == "full")
    model.model.connector.requires_grad_(recipe.connector == "full")
    train_dataset: SceneDataset | EncodedScenes = scenes
    if recipe.cached_epochs:
        if recipe.encoder != "frozen":
            raise ValueError("`cached_epochs` keeps what a frozen encoder says: it needs `encoder: frozen`.")
        file = Path(training.output_dir) / "encoded.npy"
        train_dataset = EncodedScenes(scenes, model.model.audio_tower, recipe.cached_epochs, file)
    return CaptionTrainer(
        model,
        training,
        train_dataset=train_dataset,
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

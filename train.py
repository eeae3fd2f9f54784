"""
Train MAC from a recipe.

    python train.py recipes/tiny.yaml
    accelerate launch train.py recipes/tiny.yaml --learning_rate 5e-4
    python train.py --help        # every field
"""

import sys
from pathlib import Path

from transformers import set_seed

from processing_mac.dataset_mac import read_manifest
from training_mac.building import build
from training_mac.recipe import load_stages
from training_mac.scenes import load_log_mels
from training_mac.stages import (
    make_caption_trainer,
    make_scenes,
    make_tag_trainer,
    make_teacher_trainer,
    save,
    save_teacher,
    teacher_file,
)


def main() -> None:
    stages = load_stages(sys.argv[1:])
    recipe, training = stages[0]
    set_seed(training.seed)
    clips = read_manifest(recipe.train_manifest, recipe.audio_root)
    eval_clips = read_manifest(recipe.eval_manifest, recipe.audio_root)
    model, processor = build(recipe, [text for clip in clips for text in (*clip.captions, *clip.phrases)])
    extractor = processor.feature_extractor
    log_mels = load_log_mels(clips, extractor, extractor.window_frames)

    for recipe, training in stages:
        scenes = make_scenes(recipe, training, clips, log_mels, extractor)
        if recipe.objective == "teacher":
            trainer = make_teacher_trainer(recipe, training, scenes)
        elif recipe.objective == "tags":
            trainer = make_tag_trainer(recipe, training, model, scenes)
        else:
            trainer = make_caption_trainer(recipe, training, model, processor, scenes, eval_clips)
        trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
        trainer.accelerator.end_training()
        if recipe.objective == "teacher":
            save_teacher(trainer.model, teacher_file(training))
        elif recipe.objective == "tags":
            trainer.model.hand_over(model.model.connector)

    save(model, processor, Path(training.output_dir).parent, recipe.store_float16)


if __name__ == "__main__":
    main()

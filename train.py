"""
Train MAC from a recipe.

    python train.py recipes/tiny.yaml
    accelerate launch train.py recipes/tiny.yaml --learning_rate 5e-4
    python train.py --help        # every field
"""

import sys
from pathlib import Path

from transformers import set_seed

from training_mac.building import build
from training_mac.data_check import check_data
from training_mac.recipe import load_stages
from training_mac.sources import load_clips
from training_mac.stages import make_caption_trainer, make_tag_trainer, save
from training_mac.training_set import make_training_set


def main() -> None:
    stages = load_stages(sys.argv[1:])
    recipe, data, training = stages[0]
    set_seed(training.seed)
    clips, eval_clips = load_clips(data.train_data, data), load_clips(data.eval_data, data)
    model, processor = build(recipe, data.prompt, [text for clip in clips for text in (*clip.captions, *clip.phrases)])
    check_data(data, processor)

    for recipe, data, training in stages:
        scenes = make_training_set(data, processor, training.seed)
        if recipe.objective == "tags":
            trainer = make_tag_trainer(recipe, training, model, scenes)
        else:
            trainer = make_caption_trainer(recipe, training, model, processor, scenes, eval_clips)
        trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
        trainer.accelerator.end_training()
        if recipe.objective == "tags":
            trainer.model.hand_over(model.model.connector)

    save(model, processor, Path(training.output_dir).parent, recipe.store_float16)


if __name__ == "__main__":
    main()

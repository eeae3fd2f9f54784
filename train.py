"""
Train MAC from a recipe. The same command again goes on where a run was stopped.

    python train.py recipes/tiny.yaml
    accelerate launch train.py recipes/audiocaps.yaml --learning_rate 5e-5 --stages.2.num_train_epochs 3
    python train.py --help        # every field
"""

import sys

from accelerate import PartialState

from training_mac.recipe_file import load_stages
from training_mac.run import Run
from training_mac.saving import save_model
from training_mac.stages import train_stage


def main() -> None:
    run = Run(load_stages(sys.argv[1:]))
    for stage in run.unfinished():
        train_stage(run, stage)
    folder = save_model(run)
    PartialState().print(f"The model is in {folder}: mac-caption --model {folder} FILE")
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()

"""
Train MAC from a recipe. The same command again goes on where a run was stopped.

    python train.py recipes/tiny.yaml
    accelerate launch train.py recipes/openaqa.yaml --learning_rate 5e-5 --stages.2.num_train_epochs 3
    python train.py recipes/own-data.yaml --merge_adapter true --push_to_hub --hub_model_id user/name
    python train.py --help        # every field
"""

import sys
from pathlib import Path

from accelerate import PartialState

from training_mac.recipe.file import load_stages
from training_mac.release.card import write_card
from training_mac.release.emissions import hardware_in_use
from training_mac.release.hub import prepare, publish, read_target
from training_mac.run.check import check_packing, check_stages
from training_mac.run.folder import Run
from training_mac.run.input_errors import input_errors
from training_mac.run.saving import save_model
from training_mac.run.stage import train_stage


def main() -> None:
    with input_errors():
        run = Run(load_stages(sys.argv[1:]))
        check_stages(run.stages)
        state = PartialState()
        target = read_target(run.stages[-1].settings, run.folder, run.adapter_base)
        repo_id = prepare(target) if target and run.is_main else None
        run.begin()
        check_packing(run.stages, run.base)
    has_card = run.is_finished and (run.folder / "README.md").is_file()
    for stage in run.unfinished():
        train_stage(run, stage)
    folder = save_model(run)
    if run.is_main:
        if has_card:  # by now it may hold figures and words that no training knows
            print(f"{folder / 'README.md'} is left as it is; without it, a new card would be written.")
        else:
            settings = [stage.settings for stage in run.stages]
            hardware = hardware_in_use(run.stages[0].training.device, state.num_processes)
            write_card(folder, Path(sys.argv[1]), settings, sys.argv[1:], hardware, repo_id)
        print(f"The model is in {folder}: mac-caption --model {folder} FILE")
        if target:
            with input_errors():
                print(f"Pushed: {publish(folder, target)}")
    state.destroy_process_group()


if __name__ == "__main__":
    main()

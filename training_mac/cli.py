"""
`mac-train`: train MAC from a recipe. The same command again goes on where a run was stopped.

    mac-train tiny          # a recipe that ships, or a file
    accelerate launch -m training_mac.cli recipes/openaqa.yaml --learning_rate 5e-5 --stages.2.num_train_epochs 3
    mac-train own-data --merge_adapter true --push_to_hub --hub_model_id user/name
    mac-train --help        # every field
"""

import sys
from pathlib import Path

from accelerate import PartialState

from training_mac.release.card import write_card
from training_mac.release.emissions import hardware_in_use
from training_mac.release.hub import HubTarget, prepare, publish, read_target
from training_mac.run.check import check_packing, check_stages
from training_mac.run.folder import Run
from training_mac.run.input_errors import input_errors
from training_mac.run.saving import save_model
from training_mac.run.stage import train_stage


def main(arguments: list[str] | None = None) -> None:
    """Train, save and release: exits with 2 and a line where something that was given cannot be."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with input_errors():
        run = Run.from_arguments(arguments)
    state = PartialState()
    with run.read_sources() as tables:
        with input_errors():
            check_stages(run.stages, tables)
            target = read_target(run.stages[-1].settings, run.folder, run.adapter_base)
            repo_id = prepare(target) if target and run.is_main else None
            run.begin(tables)
            check_packing(run.stages, run.base)
        has_card = run.is_finished and (run.folder / "README.md").is_file()
        for stage in run.unfinished():
            train_stage(run, stage, tables)
    folder = save_model(run)
    if run.is_main:
        release(run, folder, arguments, target, repo_id, has_card)
    state.destroy_process_group()


def release(
    run: Run, folder: Path, arguments: list[str], target: HubTarget | None, repo_id: str | None, has_card: bool
) -> None:
    """Write the card of the model in the run's folder, and push both if asked."""
    if has_card:  # by now it may hold figures and words that no training knows
        print(f"{folder / 'README.md'} is left as it is; without it, a new card would be written.")
    else:
        settings = [stage.settings for stage in run.stages]
        hardware = hardware_in_use(run.stages[0].training.device, PartialState().num_processes)
        write_card(folder, Path(arguments[0]), settings, arguments, hardware, repo_id)
    print(f"The model is in {folder}: mac-caption --model {folder} FILE")
    if target:
        with input_errors():
            print(f"Pushed: {publish(folder, target)}")


if __name__ == "__main__":
    main()

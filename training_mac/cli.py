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

from training_mac.release.card import launch_options, read_states, write_card
from training_mac.release.curve import CURVE, draw_curve
from training_mac.release.emissions import hardware_in_use
from training_mac.release.hub import prepare, publish, read_target, remove_stale
from training_mac.release.summary import next_command, summarize_training
from training_mac.run.building import quieten
from training_mac.run.check import check_base, check_stages
from training_mac.run.folder import ClipTables, Run
from training_mac.run.input_errors import input_errors, training_errors
from training_mac.run.saving import save_model
from training_mac.run.stage import train_stage


def main(arguments: list[str] | None = None) -> None:
    """Train, save and release; if something that was given cannot be used, print one line and exit with 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    quieten()
    with input_errors():
        run = Run.from_arguments(arguments)
    state = PartialState()
    with run.read_sources() as tables:
        with input_errors():
            check_stages(run.stages, tables)
            target = read_target(run.stages[-1].settings, run.folder, run.adapter_base)
            repo_id = prepare(target) if target and run.is_main else None
            run.begin(tables)
            check_base(run.stages, run.base)
        was_finished = run.is_finished
        with training_errors():
            for stage in run.unfinished():
                train_stage(run, stage, tables)
            finish(run, tables, arguments, was_finished, repo_id)
    if run.is_main and target:
        with input_errors():
            print(f"Pushed: {publish(run.folder, target)}")
    state.destroy_process_group()


def finish(run: Run, tables: ClipTables, arguments: list[str], was_finished: bool, repo_id: str | None) -> None:
    """Write the model and, for a run that has just come to its end, its card."""
    saved, folder = save_model(run, tables), run.folder
    if not run.is_main:
        return
    remove_stale(folder, saved)
    # By now the card of a finished run may hold figures and words that no training knows.
    if was_finished and (folder / "README.md").is_file():
        print(f"{folder / 'README.md'} is left as it is; without it, a new card would be written.")
    else:
        states = read_states(folder)
        print("\n".join(["", *summarize_training(states, run.stages)]))
        if draw_curve(folder, states, run.stages):
            print(f"The curve is {folder / CURVE}.")
        settings = [stage.settings for stage in run.stages]
        hardware = hardware_in_use(run.stages[0].training.device, PartialState().num_processes)
        write_card(folder, Path(arguments[0]), settings, arguments, hardware, repo_id, launch_options())
    print(f"The model is in {folder}: mac-caption --model {folder} FILE")
    stage = run.stages[-1]
    print("To measure it:", next_command(folder, stage.data.eval_data, stage.recipe.naming))


if __name__ == "__main__":
    main()

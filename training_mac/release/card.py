"""
The model card of a training: `recipes/cards/card.md`, filled from the recipe, the Trainer's log and the folder itself.

Facts about a data set, and what its models are for, stand in `recipes/cards/RECIPE.yaml`. Nothing that was not
measured is filled in.
"""

import itertools
import json
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache
from safetensors import safe_open

from evaluation_mac.reports.model_card import NOT_MEASURED, tabulate
from processing_mac.whole_files_mac import write_text_whole
from training_mac.recipe.file import recipes_folder
from training_mac.release.attribution import write_attribution
from training_mac.release.curve import CURVE
from training_mac.release.emissions import WORLD_GRID, Hardware, estimate_emissions


CARDS = recipes_folder() / "cards"
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~-])(?:~/|/[^\s/,]+/)[^,'\"{}\[\]]*")
TAGS = ("audio", "audio-captioning", "mamba-2", "state-space-model")
# For each kind of audio tower: its tag, and what a card calls it.
TOWERS = {
    "mac_eat": ("eat", "An [EAT](https://arxiv.org/abs/2401.03497) encoder"),
    "mac_ssamba": ("ssamba", "A [SSAMBA](https://arxiv.org/abs/2405.11831) encoder"),
    "mac_whisper": ("whisper", "The encoder of a [Whisper](https://arxiv.org/abs/2212.04356)"),
}
SOFTWARE = ("torch", "transformers", "peft", "accelerate")
# These values of the Trainer's evaluation say how fast it was, not how good the model is.
NOT_SCORES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def write_card(
    folder: Path,
    recipe_file: Path,
    stages: Sequence[Mapping[str, Any]],
    arguments: Sequence[str],
    hardware: Hardware,
    model_id: str | None = None,
    launch: Sequence[str] = (),
) -> None:
    """
    Write the card of a finished training, and its attribution file where data or base model have one.

    Args:
        folder: Folder with the model, and below `stage-*` each stage's `trainer_state.json` (`Trainer.save_state`).
        recipe_file: Path of the recipe; its name tells which facts of `recipes/cards` fit, else those of own data.
        stages: Each stage's fields as the recipe and the command line gave them.
        arguments: Arguments of the command line.
        hardware: Hardware that the model was trained on.
        model_id: Full name on the Hub; with None the card names no folder either, since it may be pushed later.
        launch: Options of `accelerate launch`, as `launch_options` gives them.
    """
    facts, settings = read_facts(recipe_file), stages[-1]
    states = read_states(folder)
    results = validation_results(states, settings, facts)
    bases = base_models(folder, settings)
    hours = training_hours(states)
    grams = None if hours is None or hardware.watts is None else estimate_emissions(hours, hardware.watts)
    grams = grams and float(f"{grams:.2g}")  # an estimate has no more than two digits
    name = (model_id or folder.resolve().name).split("/")[-1]
    attribution, uncredited = write_attribution(folder, stages)
    tags, tower = tower_of(folder)
    card = ModelCard.from_template(
        metadata({**facts, "tags": [*tags, *facts.get("tags", [])]}, bases, results, name, folder, grams, hardware),
        template_path=str(CARDS / "card.md"),
        **{field: facts[field] for field in ("summary", "use", "data", "limits")},
        name=name,
        model_id=model_id or "PATH_OR_HUB_ID",
        tower=tower,
        adapter=without_machine(adapter_base(folder) or ""),
        base_models=[link(base) for base in bases],
        parameters=count_parameters(folder),
        megabytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6,
        attribution=attribution,
        uncredited=uncredited,
        command=training_command(arguments, hardware.processes, launch),
        hours=hours,
        hardware=hardware,
        stages=[describe_stage(state) for state in states],
        curve=CURVE if (folder / CURVE).is_file() else None,
        versions=", ".join([f"Python {platform.python_version()}", *(f"{one} {version(one)}" for one in SOFTWARE)]),
        validation=describe_validation(results, settings),
        results=tabulate(results, [(facts["test_set"], score) for score in facts["test_scores"]]),
        evaluation=evaluation_command(facts),
        grams=grams,
        grid=WORLD_GRID,
        not_measured=NOT_MEASURED,
    )
    write_text_whole(folder / "README.md", str(card))


def read_facts(recipe_file: Path) -> dict[str, Any]:
    """Read what is known of a recipe's data without a training."""
    file = CARDS / f"{recipe_file.stem}.yaml"
    return yaml.safe_load((file if file.is_file() else CARDS / "own-data.yaml").read_text(encoding="utf-8"))


def read_states(folder: Path) -> list[dict[str, Any]]:
    """Read the Trainer's state at the end of each stage."""
    files = sorted(folder.glob("stage-*/trainer_state.json"), key=lambda file: int(file.parent.name[len("stage-") :]))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def metadata(
    facts: Mapping[str, Any],
    bases: Sequence[str],
    results: Sequence[EvalResult],
    name: str,
    folder: Path,
    grams: float | None,
    hardware: Hardware,
) -> ModelCardData:
    """Make the card's head, which the Hub reads."""
    hub_bases = [base for base in bases if is_hub_id(base)]
    emissions = {
        "emissions": grams,
        "source": "estimated from time, rated power and the world's mean grid",
        "training_type": "fine-tuning" if bases else "pre-training",
        "hardware_used": hardware.name,
    } if grams is not None else None  # fmt: skip
    return ModelCardData(
        license=facts.get("license"),
        language="en",
        library_name="peft" if adapter_base(folder) else "transformers",
        pipeline_tag="audio-text-to-text",
        tags=[*TAGS, *facts.get("tags", [])],
        datasets=facts.get("datasets"),
        base_model=hub_bases or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=name if results else None,
        eval_results=list(results) or None,
        co2_eq_emissions=emissions,
    )


def base_models(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """Name the models that the training started from."""
    named = [settings.get(field) for field in ("base_model", "base_audio_tower", "base_language_model")]
    return list(dict.fromkeys(without_machine(str(one)) for one in (adapter_base(folder), *named) if one))


def adapter_base(folder: Path) -> str | None:
    """Name the model below an adapter; None if the folder holds a whole model."""
    file = folder / "adapter_config.json"
    return json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"] if file.is_file() else None


def link(base: str) -> str:
    """Link to a model's page on the Hub, or give the name of its folder."""
    return f"[{base}](https://huggingface.co/{base})" if is_hub_id(base) else Path(base).name


def is_hub_id(name: str) -> bool:
    """Whether a name may be `user/name` on the Hub, and so is no folder of this machine."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).exists()


def count_parameters(folder: Path) -> int:
    """Count the numbers in the folder's weights."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                total += size
    return total


def training_command(arguments: Sequence[str], processes: int, launch: Sequence[str] = ()) -> str:
    """Write the command line without the token and its flag, and without folders that are only on this machine."""
    shown = list(arguments)
    for place in reversed(range(len(shown))):
        name, joined, _ = shown[place].partition("=")
        if name.replace("-", "_").endswith("hub_token"):
            del shown[place : place + (1 if joined else 2)]
    options = list(launch) or (["--num_processes", str(processes)] if processes > 1 else [])
    program = ["accelerate", "launch", *options] if options else ["python"]
    return shlex.join([*map(without_machine, program), "train.py", *map(without_machine, shown)])


def launch_options(command: Sequence[str] | None = None) -> list[str]:
    """
    Find the configuration and the number of processes that `accelerate launch` was given, which are in no recipe.

    Args:
        command: Command of the process that started this one; None asks the system. Addresses in it are left out.
    """
    words = psutil.Process().parent().cmdline() if command is None else list(command)  # type: ignore[union-attr]
    if "launch" not in words:
        return []
    words = [part for word in words[words.index("launch") + 1 :] for part in word.split("=", 1)]
    options = []
    for name, value in itertools.pairwise(words):
        if name == "-m" or name.endswith(".py"):  # all that follows is the program's own
            break
        if name.replace("-", "_") in ("__config_file", "__num_processes"):
            options += [name, value]
    return options


def without_machine(text: str) -> str:
    """Write each absolute path in a text relative to the current folder or, if elsewhere, as its last part alone."""
    return ABSOLUTE_PATH.sub(lambda found: shorten(found[0]), text)


def shorten(path: str) -> str:
    """Write a path relative to the current folder if it is below that, else as its last part."""
    full = Path(path).expanduser()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else full.name


def evaluation_command(facts: Mapping[str, Any]) -> str:
    """Write the command that measures the model on the test set; it runs in the card's folder, wherever that is."""
    command = ["mac-eval", "captioning", "--model", ".", "--data", "TEST_MANIFEST", "--output", "../results"]
    command += ["--dataset", facts["test_set"]]
    for option in ("dataset_id", "dataset_split", "naming"):
        if option in facts:
            command += [f"--{option.replace('_', '-')}", facts[option]]
    return shlex.join([*command, "--update-card"])


def tower_of(folder: Path) -> tuple[list[str], str]:
    """
    Give the tags of the model's audio tower and what the card calls it; no network is asked.

    For an adapter it is that of the model below, in a folder or, from the Hub, in the cache that it was loaded into.
    """
    base = adapter_base(folder)
    files = [folder / "config.json", Path(base or folder) / "config.json"]
    if base is not None and is_hub_id(base):
        files.append(Path(try_to_load_from_cache(base, "config.json") or files[0]))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return [], "An audio encoder"
    kind = json.loads(file.read_text(encoding="utf-8")).get("audio_config", {}).get("model_type", "mac_eat")
    tag, name = TOWERS[kind]
    return [tag], name


def training_hours(states: Sequence[Mapping[str, Any]]) -> float | None:
    """Add the hours of all stages and all starts of a stopped run; None if a stage was not timed."""
    seconds = [last(state, "elapsed") or last(state, "train_runtime") for state in states]
    return sum(seconds) / 3600 if seconds and None not in seconds else None


def describe_stage(state: Mapping[str, Any]) -> dict[str, Any]:
    """Give steps, epochs and the last loss of a stage."""
    loss = last(state, "loss")
    return {
        "steps": state["global_step"],
        "epochs": state["epoch"],
        "loss": last(state, "train_loss") if loss is None else loss,
    }


def last(state: Mapping[str, Any], name: str) -> Any:
    """Give the last value that a stage logged under a name; None if it never did."""
    return next((entry[name] for entry in reversed(state["log_history"]) if name in entry), None)


def validation_results(
    states: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], facts: Mapping[str, Any]
) -> list[EvalResult]:
    """Give the last stage's validation results: at its end, or of the best checkpoint if that was loaded."""
    logs = (
        [entry for entry in states[-1]["log_history"] if any(name.startswith("eval_") for name in entry)]
        if states
        else []
    )
    if settings.get("load_best_model_at_end") and states[-1].get("best_global_step") is not None:
        logs = [entry for entry in logs if entry["step"] == states[-1]["best_global_step"]]
    scores = {
        name[len("eval_") :]: value for name, value in (logs[-1] if logs else {}).items() if name.startswith("eval_")
    }
    return [
        EvalResult(
            task_type="audio-text-to-text",
            task_name="captioning",
            dataset_type=facts.get("datasets", ["validation"])[0],
            dataset_name="validation",
            dataset_split="validation",
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in scores.items()
        if name not in NOT_SCORES
    ]  # fmt: skip


def describe_validation(results: Sequence[EvalResult], settings: Mapping[str, Any]) -> str:
    """Say which model, at which point of the training, the validation figures are of."""
    if not results:
        return "The training was not validated."
    which = (
        "the best checkpoint, chosen by them" if settings.get("load_best_model_at_end") else "the end of the training"
    )
    return f"`validation`: the recipe's validation set, scored by the training itself at {which}; without intervals."

"""A training's card says what was measured, and only that; the Hub can read it."""

import json
import re
import shlex
import sys
from dataclasses import replace
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from transformers import Trainer, TrainingArguments

from evaluation_mac.options import build_parser
from evaluation_mac.reports.evaluation import Evaluation
from evaluation_mac.reports.model_card import update_card
from training_mac.release.card import CARDS, launch_options, write_card
from training_mac.release.emissions import Hardware, estimate_emissions, hardware_in_use


ROOT = Path(__file__).parents[3]
RECIPES = [Path("recipes") / f"{name}.yaml" for name in ("audiocaps", "clotho", "openaqa", "tiny", "another")]
HARDWARE = Hardware("2 x ABC GPU", 600.0, "the power limit of the GPUs alone")
ARGUMENTS = ["recipes/audiocaps.yaml", "--hub_token", "hf_secret", "--push_to_hub", "true", "--prompt", "What is it?"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a training of two stages leaves."""
    folder = tmp_path / "my-mac"
    for number, logs in enumerate(
        [
            [{"loss": 3.0, "step": 10}, {"train_runtime": 3600.0, "train_loss": 3.5, "step": 20}],
            [
                {"eval_cider_d": 0.51239, "eval_loss": 2.0, "eval_runtime": 8.0, "step": 10},
                {"loss": 1.25, "step": 20},
                {"eval_cider_d": 0.4, "eval_loss": 2.5, "eval_runtime": 8.0, "step": 20},
                {"train_runtime": 5400.0, "train_loss": 1.5, "step": 20},
            ],
        ],
        start=1,
    ):
        (folder / f"stage-{number}").mkdir(parents=True)
        state = {"log_history": logs, "global_step": 20, "epoch": 2.0, "best_global_step": 10}
        (folder / f"stage-{number}" / "trainer_state.json").write_text(json.dumps(state))
    save_file({"weight": torch.zeros(30, 40), "bias": torch.zeros(34)}, folder / "model.safetensors")
    return folder


def read(folder: Path) -> tuple[ModelCard, str]:
    card = ModelCard.load(folder / "README.md")
    return card, card.text


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_has_a_card_that_the_hub_reads(folder: Path, recipe: Path) -> None:
    write_card(folder, recipe, [{}], [str(recipe)], HARDWARE, "user/my-mac")
    card, text = read(folder)
    data = card.data
    assert (data.language, data.library_name, data.pipeline_tag) == ("en", "transformers", "audio-text-to-text")
    assert "audio-captioning" in data.tags and (data.license is None) == (recipe.stem in ("another", "audiocaps"))
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    parts = ["What it is for, and what not", "Model", "Data", "Training", "Results", "Carbon", "Limits"]
    assert titles == [f"## {part}" for part in parts]
    assert 'model="user/my-mac"' in text and "| 1,234, 0.0 MB |" in text
    assert "{{" not in text and "None" not in text and "\n\n\n" not in text


def test_only_what_was_measured_is_filled_in(folder: Path) -> None:
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    card, text = read(folder)
    assert {(one.dataset_name, one.metric_name): one.metric_value for one in card.data.eval_results} == {
        ("validation", "cider_d"): 0.4,
        ("validation", "loss"): 2.5,
    }
    assert "| validation | cider_d | 0.4 | |" in text
    assert "| AudioCaps test | spider | not measured | |" in text
    assert "| time | 2.50 hours" in text and "| stage 2 | 20 steps, 2 epochs, last training loss 1.25 |" in text
    assert card.data.co2_eq_emissions["emissions"] == 710 == pytest.approx(estimate_emissions(2.5, 600), abs=5)
    assert "About 710 g" in text and "2.50 hours x 600 W (the power limit of the GPUs alone) x 473 g/kWh" in text


def test_the_best_checkpoint_counts_where_it_was_loaded(folder: Path) -> None:
    write_card(folder, RECIPES[0], [{"load_best_model_at_end": True}], ARGUMENTS, HARDWARE)
    assert [one.metric_value for one in read(folder)[0].data.eval_results] == [0.5124, 2.0]


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.layer(x)
        return {"loss": (y - labels).square().mean(), "logits": y}


def test_a_real_trainer_fills_it(folder: Path) -> None:
    """Names of log entries are the Trainer's, of a training of a few steps."""
    for file in folder.glob("stage-*/trainer_state.json"):
        file.unlink()
    rows = [{"x": torch.tensor([float(i)]), "labels": torch.tensor([2.0 * i])} for i in range(8)]
    arguments = TrainingArguments(
        str(folder / "stage-1"), max_steps=4, logging_steps=2, eval_strategy="steps", eval_steps=2, report_to="none",
        save_strategy="no", use_cpu=True, disable_tqdm=True, per_device_train_batch_size=4,
    )  # fmt: skip
    trainer = Trainer(Line(), arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    trainer.save_state()
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    card, text = read(folder)
    [result] = card.data.eval_results
    logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert (result.metric_name, result.metric_value) == ("loss", round(logged[-1], 4))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert f"| stage 1 | 4 steps, 2 epochs, last training loss {losses[-1]:.4g} |" in text
    assert "| time | 0.00 hours" in text


def test_without_logs_nothing_is_claimed(folder: Path) -> None:
    for file in folder.glob("stage-*/trainer_state.json"):
        file.write_text(json.dumps({"log_history": [], "global_step": 0, "epoch": 0, "best_global_step": None}))
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    card, text = read(folder)
    assert card.data.eval_results is None and "co2_eq_emissions" not in card.data.to_dict()
    assert "metrics" not in card.data.to_dict()
    assert "| time | not measured |" in text and "last training loss not measured" in text
    assert "Not measured: the time" in text and "The training was not validated." in text


def test_mac_eval_fills_the_table(folder: Path) -> None:
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    scores = {"spider": 0.5, "cider_d": 0.8, "length": 9.0}
    evaluation = Evaluation(scores, {"spider": (0.45, 0.55)}, clips=[])
    for _ in range(2):
        update_card(folder / "README.md", "captioning", "AudioCaps test", evaluation)
    card, text = read(folder)
    assert text.count("| AudioCaps test | spider | 0.5 | 0.45 to 0.55 |") == 1
    assert "| AudioCaps test | spice | not measured |" in text and "| AudioCaps test | cider_d | not" not in text
    assert "| validation | cider_d | 0.4 |" in text and "length" not in str(card.data)
    assert card.data.metrics == ["cider_d", "loss", "spider"]


def test_the_token_stays_out(folder: Path) -> None:
    for arguments in (
        ARGUMENTS,
        ["recipe.yaml", "--hub-token", "hf_secret"],
        ["recipe.yaml", "--hub_token=hf_secret"],
        ["recipe.yaml", "--hub-token=hf_secret=="],
        ["r", "--stages.2.hub_token", "hf_secret"],
        ["r", "--stages.2.hub_token=hf_secret"],
    ):
        write_card(folder, RECIPES[0], [{"hub_token": "hf_secret"}], arguments, HARDWARE)
        assert "hf_secret" not in (folder / "README.md").read_text()
    for token in (["--hub_token", "hf_secret"], ["--hub_token=hf_secret"]):
        write_card(folder, RECIPES[0], [{}], [ARGUMENTS[0], *token, *ARGUMENTS[3:]], HARDWARE)
        assert "python train.py recipes/audiocaps.yaml --push_to_hub true --prompt 'What is it?'" in read(folder)[1]


def test_base_models_and_adapters(folder: Path) -> None:
    towers = {"base_audio_tower": "somebody/EAT", "base_language_model": str(folder)}
    write_card(folder, RECIPES[0], [towers], ARGUMENTS, HARDWARE)
    card, text = read(folder)
    assert card.data.base_model == ["somebody/EAT"]
    assert "| starts from | [somebody/EAT](https://huggingface.co/somebody/EAT), my-mac |" in text
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "user/base"}))
    write_card(folder, RECIPES[0], [{"base_model": "user/base"}], ARGUMENTS, HARDWARE)
    card, text = read(folder)
    assert (card.data.library_name, card.data.base_model) == ("peft", ["user/base"])
    assert 'PeftModel.from_pretrained(base, "PATH_OR_HUB_ID")' in text


def test_an_adapter_names_its_base_once_and_as_it_is_from_here(folder: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_cards" / "base").mkdir(parents=True)
    settings = {"base_model_name_or_path": str(tmp_path / "model_cards" / "base")}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    write_card(folder, RECIPES[0], [{"base_model": "model_cards/base"}], ARGUMENTS, HARDWARE)
    card, text = read(folder)
    assert "adapter for `model_cards/base`" in text and 'from_pretrained("model_cards/base"' in text
    assert "| starts from | base |" in text and str(tmp_path) not in text
    assert card.data.base_model is None


def test_every_facts_file_is_of_a_recipe() -> None:
    assert {file.stem for file in CARDS.glob("*.yaml")} == {"audiocaps", "clotho", "openaqa", "tiny", "own-data"}


def test_the_readme_pushes_a_model_with_license_and_data(folder: Path) -> None:
    write_card(folder, Path("recipes/tiny.yaml"), [{}], ["recipes/tiny.yaml"], HARDWARE, "user/name")
    card, text = read(folder)
    assert (card.data.license, card.data.datasets) == ("apache-2.0", ["ashraq/esc50"])
    assert "https://creativecommons.org/licenses/by/3.0/" in text
    assert {result.dataset_type for result in card.data.eval_results} == {"ashraq/esc50"}


def test_the_three_lines_are_told_what_they_need(folder: Path) -> None:
    """The install line asks for what pyproject.toml asks for, and for all that the travelling code imports."""
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    [line] = re.findall(r"^pip install .*$", read(folder)[1], re.MULTILINE)
    asked = shlex.split(line)[2:]
    project = (ROOT / "pyproject.toml").read_text()
    stated = re.findall(r'"([^"]+)"', re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)[1])
    assert set(asked) <= set(stated)
    brought = {re.match(r"[\w-]+", one)[0].replace("-", "_") for one in (*asked, *requires("transformers"))}
    code = [file.read_text() for file in (ROOT / "model_cards" / "mac-tiny").glob("*.py")]
    imported = {name for text in code for name in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)}
    assert imported - set(sys.stdlib_module_names) <= brought and "soxr" in imported
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "user/base"}))
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    [line] = re.findall(r"^pip install .*$", read(folder)[1], re.MULTILINE)
    assert set(asked) < set(shlex.split(line)[2:]) <= set(stated)


def test_commands_run_where_they_are_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    text = read(folder)[1]
    assert 'model="PATH_OR_HUB_ID"' in text  # it may be pushed later
    [command] = re.findall(r"^mac-eval .*$", text, re.MULTILINE)
    options = build_parser().parse_args(shlex.split(command)[1:])
    assert (options.model, options.dataset_id, options.dataset_split) == (".", "d0rj/audiocaps", "test")
    two = replace(HARDWARE, processes=2)
    told = [ARGUMENTS[0], f"--output_dir={tmp_path}/runs/a b", "--prompt", "this / that https://x.org/y",
            "--train_data", "{path: /home/me/data/t.csv, audio_root: /home/me/sounds}"]  # fmt: skip
    write_card(folder, RECIPES[0], [{}], told, two)
    text = read(folder)[1]
    [command] = re.findall(r"^accelerate .*$", text, re.MULTILINE)
    assert shlex.split(command) == [
        "accelerate", "launch", "--num_processes", "2", "train.py", ARGUMENTS[0], "--output_dir=runs/a b", "--prompt",
        "this / that https://x.org/y", "--train_data", "{path: t.csv, audio_root: sounds}",
    ]  # fmt: skip
    assert "/home/me" not in text and str(tmp_path) not in text


def test_the_time_is_of_all_starts(folder: Path) -> None:
    """A resumed training's `train_runtime` is of its last start only."""
    file = folder / "stage-2" / "trainer_state.json"
    state = json.loads(file.read_text())
    state["log_history"][-1] |= {"elapsed": 9000.0}
    file.write_text(json.dumps(state))
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    assert "| time | 3.50 hours, over all starts |" in read(folder)[1]


def test_an_estimate_is_the_product_of_its_assumptions() -> None:
    assert estimate_emissions(10, 500, grams_per_kwh=100, overhead=1.5) == pytest.approx(750)
    hardware = hardware_in_use(torch.device("cpu"), processes=1)
    assert hardware.watts > 0 and "assumed" in hardware.basis
    assert hardware_in_use(torch.device("meta")).watts is None


def test_the_launchers_configuration_is_told(folder: Path) -> None:
    """What it sets, such as precision and how a model is split, stands in no recipe."""
    command = ["/usr/bin/python", "/usr/bin/accelerate", "launch", "--config-file=/home/me/fsdp.yaml",
               "--main_process_ip", "10.0.0.1", "--num_processes", "2", "train.py", "--config_file", "x"]  # fmt: skip
    options = launch_options(command)
    assert options == ["--config-file", "/home/me/fsdp.yaml", "--num_processes", "2"]
    assert launch_options(["bash"]) == [] and launch_options() == []
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE, launch=options)
    [line] = re.findall(r"^accelerate .*$", read(folder)[1], re.MULTILINE)
    assert shlex.split(line)[:7] == [
        "accelerate", "launch", "--config-file", "fsdp.yaml", "--num_processes", "2", "train.py",
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "tag"), [("mac_eat", "eat"), ("mac_ssamba", "ssamba"), ("mac_whisper", "whisper")])
def test_a_card_names_its_audio_tower(folder: Path, kind: str, tag: str, tmp_path) -> None:
    config = json.dumps({"audio_config": {"model_type": kind}})
    (folder / "config.json").write_text(config)
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    card, text = read(folder)
    assert tag in card.data.tags and f"[{tag.upper() if tag != 'whisper' else 'Whisper'}](https://arxiv.org" in text
    # An adapter's tower is that of the model below it.
    (folder / "config.json").unlink()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(config)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "base")}))
    write_card(folder, RECIPES[0], [{}], ARGUMENTS, HARDWARE)
    assert tag in read(folder)[0].data.tags

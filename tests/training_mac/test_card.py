"""A training's card says what was measured, and only that; the Hub can read it."""

import csv
import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from transformers import Trainer, TrainingArguments

from evaluation_mac.evaluation import Evaluation
from evaluation_mac.model_card import update_card
from training_mac.card import CARDS, write_card
from training_mac.emissions import Hardware, estimate_emissions, hardware_in_use


RECIPES = [Path("recipes") / f"{name}.yaml" for name in ("audiocaps", "clotho", "openaqa", "another")]
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
    write_card(folder, recipe, {}, [str(recipe)], HARDWARE, "user/my-mac")
    card, text = read(folder)
    data = card.data
    assert (data.language, data.library_name, data.pipeline_tag) == ("en", "transformers", "audio-text-to-text")
    assert "audio-captioning" in data.tags and (data.license is None) == (recipe.stem == "another")
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    parts = ["What it is for, and what not", "Model", "Data", "Training", "Results", "Carbon", "Limits"]
    assert titles == [f"## {part}" for part in parts]
    assert 'model="user/my-mac"' in text and "| 1,234, 0.0 MB |" in text
    assert "{{" not in text and "None" not in text and "\n\n\n" not in text


def test_only_what_was_measured_is_filled_in(folder: Path) -> None:
    write_card(folder, RECIPES[0], {}, ARGUMENTS, HARDWARE)
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
    write_card(folder, RECIPES[0], {"load_best_model_at_end": True}, ARGUMENTS, HARDWARE)
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
    write_card(folder, RECIPES[0], {}, ARGUMENTS, HARDWARE)
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
    write_card(folder, RECIPES[0], {}, ARGUMENTS, HARDWARE)
    card, text = read(folder)
    assert card.data.eval_results is None and "co2_eq_emissions" not in card.data.to_dict()
    assert "metrics" not in card.data.to_dict()
    assert "| time | not measured |" in text and "last training loss not measured" in text
    assert "Not measured: the time" in text and "The training was not validated." in text


def test_mac_eval_fills_the_table(folder: Path) -> None:
    write_card(folder, RECIPES[0], {}, ARGUMENTS, HARDWARE)
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
        write_card(folder, RECIPES[0], {"hub_token": "hf_secret"}, arguments, HARDWARE)
        assert "hf_secret" not in (folder / "README.md").read_text()
    for token in (["--hub_token", "hf_secret"], ["--hub_token=hf_secret"]):
        write_card(folder, RECIPES[0], {}, [ARGUMENTS[0], *token, *ARGUMENTS[3:]], HARDWARE)
        assert "python train.py recipes/audiocaps.yaml --push_to_hub true --prompt 'What is it?'" in read(folder)[1]


def test_base_models_and_adapters(folder: Path) -> None:
    towers = {"base_audio_tower": "somebody/EAT", "base_language_model": str(folder)}
    write_card(folder, RECIPES[0], towers, ARGUMENTS, HARDWARE)
    card, text = read(folder)
    assert card.data.base_model == ["somebody/EAT"]
    assert "| starts from | [somebody/EAT](https://huggingface.co/somebody/EAT), my-mac |" in text
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "user/base"}))
    write_card(folder, RECIPES[0], {"base_model": "user/base"}, ARGUMENTS, HARDWARE)
    card, text = read(folder)
    assert (card.data.library_name, card.data.base_model) == ("peft", ["user/base"])
    assert 'PeftModel.from_pretrained(base, "my-mac")' in text


def test_attribution_comes_along(folder: Path, tmp_path: Path) -> None:
    settings = {"train_data": [str(tmp_path / "train.csv"), {"path": str(tmp_path / "more" / "train.csv")}]}
    write_card(folder, RECIPES[0], settings, ARGUMENTS, HARDWARE)
    assert "No attribution file" in read(folder)[1] and not (folder / "attribution.csv").exists()
    (tmp_path / "attribution.csv").write_text("file,author,licence\na.wav,somebody,CC-BY\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "attribution.csv").write_text("file,licence\nb.wav,CC0\n")
    write_card(folder, RECIPES[0], settings, ARGUMENTS, HARDWARE)
    assert "[attribution.csv](attribution.csv)" in read(folder)[1]
    with open(folder / "attribution.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"file": "a.wav", "author": "somebody", "licence": "CC-BY"},
        {"file": "b.wav", "author": "", "licence": "CC0"},
    ]


def test_every_facts_file_is_of_a_recipe_at_paper_scale() -> None:
    assert {file.stem for file in CARDS.glob("*.yaml")} == {"audiocaps", "clotho", "openaqa", "own-data"}


def test_an_estimate_is_the_product_of_its_assumptions() -> None:
    assert estimate_emissions(10, 500, grams_per_kwh=100, overhead=1.5) == pytest.approx(750)
    hardware = hardware_in_use(torch.device("cpu"), processes=1)
    assert hardware.watts > 0 and "assumed" in hardware.basis
    assert hardware_in_use(torch.device("meta")).watts is None

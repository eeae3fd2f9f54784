"""The model cards hold exactly the code of the packages, and nothing that should not be published."""

import csv
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open

from modeling_mac import MacForConditionalGeneration
from processing_mac import SHIPPED_MODELS, MacProcessor


ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("make_cards", ROOT / "model_cards" / "make_cards.py")
make_cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_cards)

FREE = ("CC0", "CC-BY", "CC BY", "CC Attribution", "CC Zero", "Apache-2.0", "MIT", "ODbL-1.0/DbCL", "Public Domain")
FOLDERS = make_cards.card_folders()


def test_there_is_a_checkpoint() -> None:
    assert [folder.name for folder in FOLDERS] == ["mac-small", "mac-tiny"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_remote_code_is_the_package(folder: Path) -> None:
    copies = {file.name: file.read_bytes() for file in folder.glob("*.py")}
    assert copies == {file.name: file.read_bytes() for file in make_cards.remote_code_files()}, "run `make cards`"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_weights_are_small_and_load_as_float32(folder: Path) -> None:
    weights = folder / "model.safetensors"
    assert weights.stat().st_size <= 16_000_000
    with safe_open(weights, "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    assert "F16" in kinds
    config = json.loads((folder / "config.json").read_text())
    assert {config["dtype"], config["audio_config"]["dtype"], config["text_config"]["dtype"]} == {"float32"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_path_of_the_machine_that_made_it(folder: Path) -> None:
    for file in folder.glob("*.json"):
        assert "/home/" not in file.read_text() and str(ROOT) not in file.read_text(), file


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_card_is_what_the_hub_reads(folder: Path) -> None:
    card = ModelCard.load(folder / "README.md")
    data = card.data
    assert (data.license, data.language, data.library_name) == ("apache-2.0", "en", "transformers")
    assert data.pipeline_tag == "audio-text-to-text" and "audio-captioning" in data.tags and data.datasets
    assert data.metrics == sorted({result.metric_type for result in data.eval_results})
    assert {result.task_type for result in data.eval_results} == {"audio-text-to-text"}
    assert data.co2_eq_emissions["emissions"] > 0
    for part in ("What it is for, and what not", "Data", "Training", "Results", "Carbon", "Limits"):
        assert f"\n## {part}\n" in card.text


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_recording_is_attributed(folder: Path) -> None:
    with open(folder / "attribution.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(row["author"] and row["url"] and row["licence"] for row in rows)
    assert all(row["licence"].startswith(FREE) and not re.search("[ -](NC|ND|SA)", row["licence"]) for row in rows)
    assert len({row["file"] for row in rows}) == len(rows)
    assert (
        f"{len(rows):,}" in ModelCard.load(folder / "README.md").text.split()
    )  # as many as the card says it learnt from


@pytest.fixture(scope="module", params=SHIPPED_MODELS)
def captioner(request: pytest.FixtureRequest):
    folder = SHIPPED_MODELS[request.param]
    model, processor = MacForConditionalGeneration.from_pretrained(folder), MacProcessor.from_pretrained(folder)

    @torch.no_grad()
    def caption(samples: np.ndarray) -> str:
        inputs = processor(audio=[samples.astype(np.float32)], sampling_rate=16_000)
        tokens = model.eval().generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        return processor.batch_decode(tokens)[0]

    return caption


@pytest.mark.parametrize("seconds", [0.5, 1, 5, 10, 30])
def test_nothing_is_called_nothing(captioner, seconds: float) -> None:
    caption = captioner(np.zeros(round(seconds * 16_000)))
    assert any(word in caption.split() for word in ("silence", "silent", "no", "nothing")), caption


@pytest.mark.parametrize("seconds", [1, 5, 10])
@pytest.mark.parametrize("decibels", [0, -15, -40])
def test_white_noise_is_called_noise(captioner, seconds: float, decibels: float) -> None:
    noise = np.random.default_rng(7).standard_normal(seconds * 16_000) * 10 ** (decibels / 20)
    caption = captioner(noise)
    assert any(word in caption.split() for word in ("noise", "static")), caption

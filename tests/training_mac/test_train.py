"""`train.py` from a recipe to a folder that captions."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

from modeling_mac import MacForConditionalGeneration
from processing_mac import AudioCaptioningPipeline
from training_mac.building import build, train_tokenizer
from training_mac.recipe import load_stages


ROOT = Path(__file__).parents[2]


def train(recipe_file: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    monkeypatch.setattr(sys, "argv", ["train.py", str(recipe_file), *overrides])
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    return recipe_file.parent / "run"


def test_a_recipe_becomes_a_folder_that_captions(recipe_file, manifest, monkeypatch, capsys) -> None:
    folder = train(recipe_file, monkeypatch)
    assert "eval_naming_accuracy" in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == config["audio_config"]["dtype"] == config["text_config"]["dtype"] == "float32"
    model = AutoModelForMultimodalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    captioner = AutoProcessor.from_pretrained(folder)
    pipeline = AudioCaptioningPipeline(model, processor=captioner, task="audio-captioning", device="cpu")
    assert isinstance(pipeline(str(manifest.parent / "0.wav"))[0]["caption"], str)


def test_the_same_seed_gives_the_same_weights(recipe_file, monkeypatch) -> None:
    first = MacForConditionalGeneration.from_pretrained(train(recipe_file, monkeypatch)).state_dict()
    second = MacForConditionalGeneration.from_pretrained(train(recipe_file, monkeypatch)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_frozen_encoder_stays_and_the_rest_learns(recipe_file, monkeypatch) -> None:
    start = train(recipe_file, monkeypatch)
    before = MacForConditionalGeneration.from_pretrained(start).state_dict()
    text = recipe_file.read_text().replace("objective: tags", "objective: captions\n  encoder: frozen")
    recipe_file.write_text(text.replace("store_float16: true", "store_float16: false"))
    again = train(recipe_file, monkeypatch, "--base_model", str(start))
    after = MacForConditionalGeneration.from_pretrained(again).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("audio_tower" in name for name in changed)
    assert any("connector" in name for name in changed) and any("out_proj" in name for name in changed)


def test_the_encoder_has_its_own_learning_rate(recipe_file) -> None:
    from training_mac.trainer import MacTrainer

    recipe, _, training = load_stages([str(recipe_file)])[0]
    model, _ = build(recipe, None, ["rain falls"])
    optimizer = MacTrainer(model, training, encoder_learning_rate=1e-5).create_optimizer()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert {rate for name, rate in names.items() if "audio_tower" in name} == {1e-5}
    assert {rate for name, rate in names.items() if "audio_tower" not in name} == {training.learning_rate}


def test_the_tokenizer_keeps_every_caption() -> None:
    texts = ["a dog barks", "rain falls, followed by a siren"]
    tokenizer = train_tokenizer(texts, vocab_size=320)
    assert [tokenizer.decode(tokenizer(text)["input_ids"]) for text in texts] == texts
    assert tokenizer("<|audio|><|audio|>")["input_ids"] == [2, 2] and tokenizer.padding_side == "left"

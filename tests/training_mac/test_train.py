"""`train.py` from a recipe to a folder that captions."""

import json

import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

from processing_mac import AudioCaptioningPipeline
from training_mac.building import train_tokenizer


def test_a_recipe_becomes_a_folder_that_captions(recipe_file, manifest, train, capsys) -> None:
    folder = train(recipe_file)
    printed = capsys.readouterr().out
    assert "eval_naming_accuracy" in printed and "eval_cider_d" in printed and "waiting_for_data" in printed
    assert "for  'the siren wails'" in printed  # a caption beside its reference
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == config["audio_config"]["dtype"] == config["text_config"]["dtype"] == "float32"
    model = AutoModelForMultimodalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    captioner = AutoProcessor.from_pretrained(folder)
    pipeline = AudioCaptioningPipeline(model, processor=captioner, task="audio-captioning", device="cpu")
    assert isinstance(pipeline(str(manifest.parent / "0.wav"))[0]["caption"], str)


def test_the_same_seed_gives_the_same_weights(recipe_file, train, tmp_path, weights_after) -> None:
    first, again = (weights_after(train(recipe_file, "--output_dir", str(tmp_path / name)), 2) for name in "ab")
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = weights_after(train(recipe_file, "--output_dir", str(tmp_path / "c"), "--stages.2.seed", "7"), 2)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_tokenizer_keeps_every_caption() -> None:
    texts = ["a dog barks", "rain falls, followed by a siren"]
    tokenizer = train_tokenizer(texts, vocab_size=320)
    assert [tokenizer.decode(tokenizer(text)["input_ids"]) for text in texts] == texts
    assert tokenizer("<|audio|><|audio|>")["input_ids"] == [2, 2] and tokenizer.padding_side == "left"

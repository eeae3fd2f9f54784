"""`train.py` from a recipe to a folder that captions."""

import json

import pytest
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


def test_an_encoder_may_be_taught_and_its_outputs_kept(write_recipe, train, weights_after) -> None:
    stages = [
        {"objective": "teacher", "teacher_width": 4},
        {"objective": "tags", "kept_patches": 32, "imitate_teacher": True, "teacher_width": 4},
        {"objective": "captions", "encoder": "frozen", "connector": "frozen", "cached_epochs": 2},
    ]
    folder = train(write_recipe(stages=stages, save_strategy="epoch", save_total_limit=1))
    assert (folder / "stage-1" / "result" / "teacher.safetensors").is_file()
    before, after = weights_after(folder, 2), weights_after(folder, 3)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("language_model" in name for name in changed)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"objective": "tags", "imitate_teacher": True}, "a stage with `objective: teacher` must come first"),
        ({"encoder": "full", "cached_epochs": 2}, "needs `encoder: frozen`"),
    ],
)
def test_what_cannot_be_is_refused(write_recipe, train, stage, message) -> None:
    with pytest.raises(ValueError, match=message):
        train(write_recipe(stages=[stage]))

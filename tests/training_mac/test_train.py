"""`train.py` from a recipe to a folder that captions."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMultimodalLM, AutoProcessor

from processing_mac import AudioCaptioningPipeline
from training_mac.data.tables import ClipTables
from training_mac.recipe.data_fields import DataRecipe, parse_sources
from training_mac.run.building import train_tokenizer


def test_a_recipe_becomes_a_folder_that_captions(recipe_file, manifest, train, capsys) -> None:
    folder = train(recipe_file)
    printed = capsys.readouterr().out
    assert "naming_accuracy" in printed and "cider_d" in printed and "waiting" in printed and "{" not in printed
    assert "for  'the siren wails'" in printed  # a caption beside its reference
    assert "Stage 2, captions: 3 steps, " in printed and "best loss after epoch 3" in printed
    assert f"To measure it: mac-eval captioning --model {folder} --data {manifest}" in printed
    assert (folder / "training.png").is_file() and "](training.png)" in (folder / "README.md").read_text()
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


def test_a_new_language_model_may_start_with_a_long_memory(write_recipe, train, weights_after) -> None:
    fields = {"A_init_range": [0.1, 0.8], "language_model": "frozen"}
    weights = weights_after(train(write_recipe(**fields)), 1)
    for layer in range(2):
        rates = weights[f"model.language_model.layers.{layer}.mixer.A_log"].exp()
        assert rates[0] == pytest.approx(0.1) and rates[-1] == pytest.approx(0.8)
        torch.testing.assert_close(rates[1:] / rates[:-1], torch.full((7,), 8 ** (1 / 7)))


def test_an_encoder_may_be_taught_and_its_outputs_kept(write_recipe, train, weights_after) -> None:
    stages = [
        {"objective": "teacher", "teacher_width": 4},
        {"objective": "teacher", "teacher_width": 6},
        {"objective": "tags", "kept_patches": 32, "imitate_teachers": True},
        {"objective": "captions", "encoder": "frozen", "connector": "frozen", "cached_epochs": 2, "encoding_mix": 0.3},
    ]
    folder = train(write_recipe(stages=stages, save_strategy="epoch", save_total_limit=1))
    assert (folder / "stage-1" / "result" / "teacher.safetensors").is_file()
    assert (folder / "stage-2" / "result" / "teacher.safetensors").is_file()
    before, after = weights_after(folder, 3), weights_after(folder, 4)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("language_model" in name for name in changed)


def test_a_stage_may_end_with_the_mean_of_its_last_checkpoints(write_recipe, train, weights_after, capsys) -> None:
    stages = [{"objective": "tags", "kept_patches": 32, "average_checkpoints": 2}]
    folder = train(write_recipe(stages=stages, save_strategy="steps", save_steps=1, eval_data=None))
    assert "Stage 1 ends with the mean of checkpoint-3, checkpoint-2." in capsys.readouterr().out
    second, third = (load_file(folder / "stage-1" / f"checkpoint-{step}" / "model.safetensors") for step in (2, 3))
    result = weights_after(folder)
    name = "audio_tower.layers.0.mlp.fc1.weight"
    assert not torch.equal(second[name], third[name])
    torch.testing.assert_close(result[f"model.{name}"], (second[name] + third[name]) / 2)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"objective": "tags", "imitate_teachers": True}, "a stage with `objective: teacher` must come first"),
        ({"encoder": "full", "cached_epochs": 2}, "needs `encoder: frozen`"),
    ],
)
def test_what_cannot_be_is_refused(write_recipe, train, stage, message) -> None:
    with pytest.raises(ValueError, match=message):
        train(write_recipe(stages=[stage]))


def test_packing_with_a_transformer_is_refused(write_recipe, train) -> None:
    text = {"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64}  # fmt: skip
    audio = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    recipe = write_recipe(model={"audio_config": {**audio, "window_frames": 512}, "text_config": text})
    with pytest.raises(ValueError, match=r"`packing` needs .* 'mamba2' or .*; this one is 'gpt_neox'"):
        train(recipe, "--packing")
    assert not list((recipe.parent / "run").glob("stage-*"))
    train(recipe)


@pytest.fixture
def half_bad(manifest: Path, tmp_path: Path) -> str:
    """A manifest whose first and third of six recordings are no audio."""
    for name in ("noise.wav", "words.wav"):
        (tmp_path / name).write_bytes(b"no audio")
    header, *rows = manifest.read_text().splitlines()
    rows = [f"{manifest.parent}/{row}" for row in rows]
    rows.insert(0, "noise.wav,siren,the siren wails,the siren")
    rows.insert(2, "words.wav,rain,the rain falls,the rain")
    path = tmp_path / "half-bad.csv"
    path.write_text("\n".join([header, *rows]))
    return str(path)


def test_bad_audio_is_skipped_in_every_kind_of_stage_and_in_validation(write_recipe, train, half_bad, capsys) -> None:
    stages = [
        {"objective": "teacher", "teacher_width": 4, "max_steps": 6},
        {"objective": "tags", "whiten": True, "kept_patches": 32, "imitate_teachers": True},
        {"objective": "captions", "eval_strategy": "steps", "eval_steps": 3},
    ]
    fields = {"train_data": half_bad, "eval_data": half_bad, "per_device_train_batch_size": 2}
    folder = train(write_recipe(**fields, stages=stages, skip_bad_audio=True))
    assert capsys.readouterr().out.count("  for  ") == 4  # captions beside their references: of what can be read
    logs = [entry for stage in (1, 2, 3) for entry in json.loads(
        (folder / f"stage-{stage}" / "trainer_state.json").read_text())["log_history"]]  # fmt: skip
    assert any("eval_loss" in entry for entry in logs)


def test_validation_without_any_readable_audio_is_refused(half_bad, processor, tmp_path) -> None:
    data = DataRecipe("", eval_data=half_bad, skip_bad_audio=True)

    def readable() -> list[str]:
        with ClipTables(tmp_path / "clips") as tables:
            tables.read(*parse_sources(half_bad, data))
            clips = tables.readable_validation(data, processor.feature_extractor)
            return [Path(clip.audio).name for clip in clips]

    assert readable() == [f"{row}.wav" for row in range(4)]
    Path(half_bad).write_text("audio,caption\nnoise.wav,a\nwords.wav,b\n")
    with pytest.raises(ValueError, match=r"None of the recordings to validate on can be read\.\n.*noise\.wav"):
        readable()


def test_a_finished_run_keeps_its_card(base, write_recipe, train, capsys) -> None:
    """By then it may hold measured figures and words by hand; peft's own card must not take its place, either."""
    recipe = write_recipe(base_model=str(base), language_model="lora", max_steps=1)
    folder = train(recipe)
    card = folder / "README.md"
    assert "# run" in card.read_text() and "This is an adapter for" in card.read_text()
    card.write_text(card.read_text() + "Words by hand.\n")
    train(recipe)
    assert "Words by hand." in card.read_text() and "README.md is left as it is" in capsys.readouterr().out
    card.unlink()
    train(recipe)
    assert "This is an adapter for" in card.read_text()


def test_the_processor_tells_whether_it_was_asked_more_than_one_prompt(write_recipe, train, manifest, tmp_path):
    one = train(write_recipe(max_steps=1, eval_strategy="no"))
    assert AutoProcessor.from_pretrained(one).knows_prompts is False
    sources = [str(manifest), {"path": str(manifest), "prompt": "What is heard?"}]
    fields = {"max_steps": 1, "eval_strategy": "no", "output_dir": str(tmp_path / "two"), "train_data": sources}
    assert AutoProcessor.from_pretrained(train(write_recipe(**fields))).knows_prompts is True

"""Recipes are checked, staged and overridden."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from transformers import TrainingArguments

from training_mac.recipe.file import KINDS, load_stages


SHIPPED = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
SHIPPED = [path for path in SHIPPED if not path.stem.endswith("_captions")]


def test_later_settings_win(recipe_file: Path) -> None:
    overrides = ["--learning_rate", "1e-4", "--output_dir", "elsewhere", "--stages.2.learning_rate", "1e-5"]
    stages = load_stages([str(recipe_file), *overrides, "--stages.1.seed", "7", "--model.connector_type", "mean_pool"])
    assert [stage.recipe.objective for stage in stages] == ["tags", "captions"]
    assert [stage.data.join_probability for stage in stages] == [0.5, 0.0]
    assert [stage.training.learning_rate for stage in stages] == [1e-4, 1e-5]
    assert [stage.training.seed for stage in stages] == [7, 42]
    assert [stage.training.output_dir for stage in stages] == ["elsewhere/stage-1", "elsewhere/stage-2"]
    model = stages[0].recipe.model
    assert model["connector_type"] == "mean_pool" and model["audio_config"]["hidden_size"] == 32


@pytest.mark.parametrize("arguments", [["--learning_rat", "1"], ["--learning_rate_of_encoder", "x"],
                                       ["--stages.2.encoder_learning_rat", "1"]])  # fmt: skip
def test_an_unknown_field_suggests_the_nearest(recipe_file: Path, arguments: list[str]) -> None:
    with pytest.raises(ValueError, match=r"command line: no field .* Did you mean '(encoder_)?learning_rate'"):
        load_stages([str(recipe_file), *arguments])


def test_an_unknown_field_in_a_stage_names_file_and_stage(recipe_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace("kept_patches", "kept_patch"))
    with pytest.raises(ValueError, match=r"recipe.yaml, stage 1: no field 'kept_patch'. Did you mean 'kept_patches'"):
        load_stages([str(recipe_file)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "abc"], "'seed' is 'abc'; expected int"),
        (["--encoder", "lroa"], "'encoder' is 'lroa'; expected 'frozen' or 'lora' or 'full'"),
        (["--packing", "yes"], "'packing' is 'yes'; expected bool"),
        (["--stages.3.seed", "1"], "no stage 3; .* has 2"),
        (["--stages", "1"], "`--stages.NUMBER.field value`"),
        (["--seed.x", "1"], "'seed' is {'x': 1}; expected int"),
        (["--vocab_size.x", "1"], "reaches into 'vocab_size'"),
        (["--learning_rate"], "'learning_rate' is True; expected float"),
        (["--hub_token", "7"], "'hub_token' is not shown; expected str"),
        (["learning_rate", "1"], "'learning_rate' is a value without its field. Expected `--field value`"),
        (["--eval_metrics", "bleu", "cider_d"], r"'cider_d' is a value .* one list: --eval_metrics '\[a, b\]'"),
    ],
)
def test_a_wrong_override_is_explained(recipe_file: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_stages([str(recipe_file), *arguments])


def test_a_field_without_a_value_is_true(recipe_file: Path) -> None:
    [stage, _] = load_stages([str(recipe_file), "--push_to_hub", "--hub_model_id", "user/mac", "--packing"])
    assert stage.settings["push_to_hub"] is True and stage.settings["hub_model_id"] == "user/mac"
    assert stage.recipe.packing and not stage.training.push_to_hub


def test_a_value_may_be_joined_to_its_field(recipe_file: Path) -> None:
    joined = ["--learning-rate=1e-4", "--prompt=--what=that?", "--packing", "--hub_token=hf_x==", "--stages.2.seed=7"]
    stages = load_stages([str(recipe_file), *joined])
    assert [stage.training.learning_rate for stage in stages] == [1e-4, 1e-4]
    assert [stage.training.seed for stage in stages] == [42, 7]
    assert stages[0].data.prompt == "--what=that?" and stages[0].recipe.packing
    assert stages[0].settings["hub_token"] == "hf_x=="


@pytest.mark.parametrize(
    "argument", ["--hub_tokn=hf_SECRET", "--stages.9.hub_token=hf_SECRET", "--hub_token.x=hf_SECRET"]
)
def test_a_token_in_a_wrong_place_is_not_shown(recipe_file: Path, argument: str) -> None:
    with pytest.raises(ValueError, match=r"command line") as error:
        load_stages([str(recipe_file), argument])
    assert "SECRET" not in str(error.value)


def test_a_missing_recipe_or_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.yaml: no such recipe"):
        load_stages(["nowhere.yaml"])
    (tmp_path / "empty.yaml").write_text("seed: 1")
    with pytest.raises(ValueError, match=r"empty.yaml: the field 'train_data' is missing: What to learn from"):
        load_stages([str(tmp_path / "empty.yaml")])


def test_a_recipe_in_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("seed: 1\nprompt: Was hört man?\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.yaml: expected UTF-8 text, which line 2 is not"):
        load_stages([str(tmp_path / "latin.yaml")])


def test_no_is_a_word_and_1e_4_a_number(recipe_file: Path) -> None:
    [stage, _] = load_stages([str(recipe_file), "--eval_strategy", "no", "--weight_decay", "1e-4"])
    assert stage.training.eval_strategy == "no" and stage.training.weight_decay == 1e-4


def test_every_field_is_explained(capsys) -> None:
    """Those of transformers' `TrainingArguments` by transformers."""
    with pytest.raises(SystemExit) as stopped:
        load_stages(["--help"])
    printed = "".join(capsys.readouterr().out.split())  # lines break anywhere
    assert stopped.value.code == 0 and "--stages.2.field" in printed
    inherited = {field.name for field in fields(TrainingArguments)}
    for field in [field for kind in KINDS for field in fields(kind)]:
        assert f"--{field.name}" in printed
        if field.name not in inherited:
            text = field.metadata.get("help", "")
            assert len(text.split()) > 2 and "".join(text.split()) in printed, field.name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_recipes_that_ship_are_valid(path: Path) -> None:
    assert load_stages([str(path), "--use_cpu", "true", "--bf16", "false"])


@pytest.mark.parametrize(
    ("stages", "message"),
    [("captions", "`stages` is 'captions'; expected a list"), ("{a: 1}", "`stages` is {'a': 1}; expected a list"),
     ("[captions]", "recipe.yaml, stage 1: 'captions'; expected a mapping"), ("[{}, 7]", "stage 2: 7; expected a"),
     ("[{}, {output_dir: x}]", "stage 2: 'output_dir' is for the whole run; it stands above `stages`"),
     ("[{push_to_hub: true}, {}]", "stage 1: 'push_to_hub' is for the whole run")],
)  # fmt: skip
def test_stages_are_a_list_of_mappings_of_what_a_stage_has(recipe_file: Path, stages: str, message: str) -> None:
    text = recipe_file.read_text()
    recipe_file.write_text(f"{text[: text.index('stages:')]}train_data: x.csv\nstages: {stages}\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        load_stages([str(recipe_file)])


@pytest.mark.parametrize("name", ["output_dir", "output-dir", "hub_model_id", "merge_adapter"])
def test_what_a_run_does_once_is_no_stages(recipe_file: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"stage 2: '{name.replace('-', '_')}' is for the whole run"):
        load_stages([str(recipe_file), f"--stages.2.{name}", "true"])


def test_keys_of_a_mapping_keep_their_dashes(recipe_file: Path) -> None:
    arguments = ["--audio-root.as-20k", "/sounds", "--stages.2.audio-root.fsd-50k", "/more", "--learning-rate", "1e-4"]
    first, second = load_stages([str(recipe_file), *arguments])
    assert first.data.audio_root == {"as-20k": "/sounds"} and first.training.learning_rate == 1e-4
    assert second.data.audio_root == {"as-20k": "/sounds", "fsd-50k": "/more"}

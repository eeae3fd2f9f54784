"""Recipes are checked, staged and overridden."""

from pathlib import Path

import pytest

from training_mac.recipe import load_stages


def test_stages_override_the_recipe_and_the_command_line_overrides_both(recipe_file: Path) -> None:
    stages = load_stages([str(recipe_file), "--learning_rate", "1e-4", "--output_dir", "elsewhere"])
    assert [recipe.objective for recipe, _, _ in stages] == ["tags", "captions"]
    assert [data.join_probability for _, data, _ in stages] == [0.5, 0.0]
    assert [training.learning_rate for _, _, training in stages] == [1e-4, 1e-4]
    assert [training.output_dir for _, _, training in stages] == ["elsewhere/stage-1", "elsewhere/stage-2"]


@pytest.mark.parametrize("arguments", [["--learning_rat", "1"], ["--train_dat", "x"]])
def test_an_unknown_field_suggests_the_nearest(recipe_file: Path, arguments: list[str]) -> None:
    with pytest.raises(ValueError, match=r"command line: no field .* Did you mean '(learning_rate|train_data)'"):
        load_stages([str(recipe_file), *arguments])


def test_an_unknown_field_in_a_stage_names_the_file(recipe_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace("kept_patches", "kept_patch"))
    with pytest.raises(ValueError, match=r"recipe.yaml: no field 'kept_patch'. Did you mean 'kept_patches'"):
        load_stages([str(recipe_file)])


def test_a_missing_recipe_is_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere.yaml: no such recipe"):
        load_stages(["nowhere.yaml"])


def test_overrides_come_in_pairs(recipe_file: Path) -> None:
    with pytest.raises(ValueError, match="pairs"):
        load_stages([str(recipe_file), "--seed"])


def test_help_lists_every_field(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        load_stages(["--help"])
    printed = capsys.readouterr().out
    assert "--train_data" in printed and "--join_probability" in printed and "--learning_rate" in printed


def test_the_shipped_recipe_is_valid() -> None:
    stages = load_stages([str(Path(__file__).parents[2] / "recipes" / "tiny.yaml")])
    assert stages[-1][0].objective == "captions" and stages[-1][0].store_float16

"""All that is wrong is said at once, before training starts."""

import logging
from pathlib import Path

import pytest

from training_mac.data.check import check_data, spread
from training_mac.recipe.data_fields import DataRecipe


@pytest.fixture
def bad_manifest(manifest: Path, tmp_path: Path) -> str:
    """One good row, an empty caption, a missing file, an unreadable file, a text with `<|audio|>`."""
    good = manifest.parent / "0.wav"
    (tmp_path / "noise.wav").write_bytes(b"noise")
    text = f"audio,caption\n{good},A\n{good},\ngone.wav,B\nnoise.wav,C\n{good},<|audio|>\n"
    (tmp_path / "bad.csv").write_text(text)
    return str(tmp_path / "bad.csv")


def test_everything_is_reported_with_file_and_line(bad_manifest: str, manifest: Path, processor) -> None:
    nowhere = {"path": str(manifest), "audio_root": "nowhere"}
    with pytest.raises(ValueError) as error:
        check_data([DataRecipe(bad_manifest, eval_data=nowhere)], processor.feature_extractor, processor.audio_token)
    first, *lines = str(error.value).split("\n")
    assert first == "Problems with the data, 5 in all:"
    for problem in ("bad.csv, line 3: no `caption`", "bad.csv, line 4: no recording", "bad.csv, line 5: ",
                    "bad.csv, line 6: <|audio|> in a text", "clips.csv: no audio folder nowhere"):  # fmt: skip
        assert sum(problem in line for line in lines) == 1, problem


def test_bad_audio_may_be_left_out_but_bad_rows_not(bad_manifest: str, processor, caplog) -> None:
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ValueError, match="Problems with the data, 2 in all") as error,
    ):
        check_data([DataRecipe(bad_manifest, skip_bad_audio=True)], processor.feature_extractor, processor.audio_token)
    assert "line 3" in str(error.value) and "line 6" in str(error.value)
    assert "2 recordings are left out, such as" in caplog.text


def test_all_sources_of_all_stages_are_reported_at_once(bad_manifest: str, tmp_path: Path, processor) -> None:
    (tmp_path / "empty").mkdir()
    recipes = [
        DataRecipe(str(tmp_path / "none.csv"), eval_data=bad_manifest),
        DataRecipe(bad_manifest, eval_data=str(tmp_path / "empty")),
        DataRecipe([str(tmp_path / "none.csv"), str(tmp_path / "none.tar")]),
    ]
    with pytest.raises(ValueError) as error:
        check_data(recipes, processor.feature_extractor, processor.audio_token)
    for problem in (
        "none.csv: no such manifest",
        "bad.csv, line 3: ",
        "cannot be opened as a dataset",
        "no such shard",
    ):
        assert problem in str(error.value), problem
    assert str(error.value).count("none.csv") == str(error.value).count("bad.csv, line 3") == 1


def test_good_data_passes(manifest: Path, processor) -> None:
    check_data(
        [DataRecipe(str(manifest), eval_data=str(manifest))], processor.feature_extractor, processor.audio_token
    )


def test_the_sample_reaches_both_ends() -> None:
    assert spread(1000, 3) == [0, 500, 999] and spread(2, 100) == [0, 1] and spread(0, 5) == []


def test_shards_are_looked_into(tmp_path: Path, processor) -> None:
    with pytest.raises(ValueError, match=r"Problems with the data, 1 in all:\n.*none.tar: no such shard"):
        check_data([DataRecipe(str(tmp_path / "none.tar"))], processor.feature_extractor, processor.audio_token)

"""All that is wrong is said at once, before training starts."""

import io
import logging
import tarfile
from pathlib import Path

import pytest

from training_mac.data.check import read_and_check, spread
from training_mac.data.sources import read_source
from training_mac.examples.training_set import make_training_set
from training_mac.recipe.data_fields import DataRecipe


def front(processor) -> tuple:
    return processor.feature_extractor, processor.audio_token


@pytest.fixture
def bad_manifest(manifest: Path, tmp_path: Path) -> str:
    """One good row, an empty caption, a missing file, an unreadable file, a text with `<|audio|>`."""
    good = manifest.parent / "0.wav"
    (tmp_path / "noise.wav").write_bytes(b"noise")
    text = f"audio,caption\n{good},A\n{good},\ngone.wav,B\nnoise.wav,C\n{good},<|audio|>\n"
    (tmp_path / "bad.csv").write_text(text)
    return str(tmp_path / "bad.csv")


def test_everything_is_reported_with_file_and_line(bad_manifest: str, manifest: Path, processor, tables) -> None:
    nowhere = {"path": str(manifest), "audio_root": "nowhere"}
    with pytest.raises(ValueError) as error:
        read_and_check(
            [DataRecipe(bad_manifest, eval_data=nowhere)], tables, processor.feature_extractor, processor.audio_token
        )
    first, *lines = str(error.value).split("\n")
    assert first == "Problems with the data, 5 in all:"
    for problem in ("bad.csv, line 3: no `caption`", "bad.csv, line 4: no recording", "bad.csv, line 5: ",
                    "bad.csv, line 6: <|audio|> in a text", "clips.csv: no audio folder nowhere"):  # fmt: skip
        assert sum(problem in line for line in lines) == 1, problem


def test_bad_audio_may_be_left_out_but_bad_rows_not(bad_manifest: str, processor, tables, caplog) -> None:
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ValueError, match="Problems with the data, 2 in all") as error,
    ):
        read_and_check(
            [DataRecipe(bad_manifest, skip_bad_audio=True)], tables, processor.feature_extractor, processor.audio_token
        )
    assert "line 3" in str(error.value) and "line 6" in str(error.value)
    assert "2 recordings are left out, such as" in caplog.text


def test_a_source_without_any_recording_is_an_error_all_the_same(tmp_path: Path, processor, tables) -> None:
    (tmp_path / "x.csv").write_text("audio,caption\ngone.wav,A\n")
    with pytest.raises(ValueError, match=r"x.csv: none of its recordings are there"):
        read_and_check([DataRecipe(str(tmp_path / "x.csv"), skip_bad_audio=True)], tables, *front(processor))


def test_every_source_is_read_once(manifest: Path, processor, tables, monkeypatch) -> None:
    """For check, tokenizer, training and validation, in all stages."""
    read: list[str] = []
    monkeypatch.setattr(
        "training_mac.data.tables.read_source",
        lambda source, *notes: read.append(source.path) or read_source(source, *notes),
    )
    stages = [DataRecipe(str(manifest), eval_data=str(manifest)), DataRecipe(str(manifest), skip_bad_audio=True)]
    read_and_check(stages, tables, *front(processor))
    for data in stages:
        assert len(make_training_set(data, processor, 0, tables)) == 4 and len(list(tables.texts(data))) == 8
        tables.readable_validation(data, processor.feature_extractor)
    assert read == [str(manifest)]


def test_all_sources_of_all_stages_are_reported_at_once(bad_manifest: str, tmp_path: Path, processor, tables) -> None:
    (tmp_path / "empty").mkdir()
    recipes = [
        DataRecipe(str(tmp_path / "none.csv"), eval_data=bad_manifest),
        DataRecipe(bad_manifest, eval_data=str(tmp_path / "empty")),
        DataRecipe([str(tmp_path / "none.csv"), str(tmp_path / "none.tar")]),
    ]
    with pytest.raises(ValueError) as error:
        read_and_check(recipes, tables, *front(processor))
    for problem in (
        "none.csv: no such manifest",
        "bad.csv, line 3: ",
        "cannot be opened as a dataset",
        "no such shard",
    ):
        assert problem in str(error.value), problem
    assert str(error.value).count("none.csv") == str(error.value).count("bad.csv, line 3") == 1


def test_good_data_passes(manifest: Path, processor, tables) -> None:
    read_and_check(
        [DataRecipe(str(manifest), eval_data=str(manifest))],
        tables,
        processor.feature_extractor,
        processor.audio_token,
    )


def test_the_sample_reaches_both_ends() -> None:
    assert spread(1000, 3) == [0, 500, 999] and spread(2, 100) == [0, 1] and spread(0, 5) == []


def test_shards_are_looked_into(tmp_path: Path, processor, tables) -> None:
    with pytest.raises(ValueError, match=r"Problems with the data, 1 in all:\n.*none.tar: no such shard"):
        read_and_check([DataRecipe(str(tmp_path / "none.tar"))], tables, *front(processor))


@pytest.mark.parametrize("row", ["x,<|audio|>,", "x,,Say <|audio|>"])
def test_the_audio_token_is_found_in_every_text(manifest: Path, tmp_path: Path, processor, tables, row: str) -> None:
    path = tmp_path / "marked.csv"
    path.write_text(f"audio,caption,phrase,prompt\n{manifest.parent / '0.wav'},{row}\n")
    with pytest.raises(ValueError, match=r"marked.csv, line 2: <\|audio\|> in a text"):
        read_and_check([DataRecipe(str(path))], tables, *front(processor))


def test_the_audio_token_is_found_in_prompt_and_shards(manifest: Path, tmp_path: Path, processor, tables) -> None:
    with pytest.raises(ValueError, match=r"`prompt` is 'What\? <\|audio\|>'"):
        read_and_check(
            [DataRecipe(str(manifest), prompt="What? <|audio|>")], tables, processor.feature_extractor, "<|audio|>"
        )
    with tarfile.open(tmp_path / "one.tar", "w") as shard:
        shard.add(manifest.parent / "0.wav", "0.wav")
        text = b"a <|audio|> falls"
        member = tarfile.TarInfo("0.txt")
        member.size = len(text)
        shard.addfile(member, io.BytesIO(text))
    with pytest.raises(ValueError, match=r"one.tar, 0: <\|audio\|> in a text"):
        read_and_check([DataRecipe(str(tmp_path / "one.tar"))], tables, *front(processor))

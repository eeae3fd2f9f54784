"""Hugging Face datasets, with their audio inside or beside them."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

from processing_mac.audio_mac import load_waveform
from processing_mac.dataset_mac import read_manifest
from training_mac.data.features import digest
from training_mac.recipe.data_fields import DataRecipe


@pytest.fixture
def stored(manifest: Path, tmp_path: Path) -> Path:
    """A folder as `save_to_disk` writes it, with the bytes of the sounds, in two splits."""
    clips = read_manifest(manifest)
    rows = {
        "audio": [{"bytes": Path(clip.audio).read_bytes(), "path": None} for clip in clips],
        "caption": [["one", "two"]] * len(clips),
    }
    dataset = embed(rows).rename_columns({"audio": "sound", "caption": "captions"})
    datasets.DatasetDict(train=dataset, test=dataset.select([0])).save_to_disk(tmp_path / "stored")
    return tmp_path / "stored"


COLUMNS = {"audio": "sound", "caption": "captions"}


def test_embedded_audio_is_read_when_asked_for(stored: Path, manifest: Path, load_clips) -> None:
    clips = load_clips({"path": str(stored), "columns": COLUMNS})
    originals = read_manifest(manifest)
    assert [clip.captions for clip in clips] == [("one", "two")] * 4
    for clip, original in zip(clips, originals, strict=True):
        np.testing.assert_array_equal(load_waveform(clip.audio), load_waveform(original.audio))
        assert digest(clip.audio) == digest(original.audio)
    assert str(clips[1].audio) == f"{stored}, row 2" and clips[0].audio.identity != clips[1].audio.identity


def test_splits_are_chosen_and_wrong_ones_named(stored: Path, load_clips) -> None:
    assert len(load_clips({"path": str(stored), "columns": COLUMNS, "split": "test"})) == 1
    with pytest.raises(ValueError, match="no split 'dev'; it has train, test"):
        load_clips({"path": str(stored), "columns": COLUMNS, "split": "dev"})


def test_what_to_validate_on_must_be_said_where_there_are_several_splits(
    stored: Path, tmp_path: Path, read_data
) -> None:
    value = {"path": str(stored), "columns": COLUMNS}

    def read(value: dict) -> Any:
        data = DataRecipe("", eval_data=value)
        return read_data(data).validation(data)

    with pytest.raises(ValueError, match=r"stored: it has train, test; say which is meant: `split: test`"):
        read(value)
    assert len(read({**value, "split": "test"})) == 1
    datasets.load_from_disk(stored)["test"].save_to_disk(tmp_path / "one" / "test")
    assert len(read({**value, "path": str(tmp_path / "one" / "test")})) == 1


def test_one_of_several_configurations_is_named(tmp_path: Path, manifest: Path, load_clips) -> None:
    """A repository's README names them, here and on the Hub."""
    for name, caption in (("short", "a siren"), ("long", "the siren wails")):
        (tmp_path / f"{name}.csv").write_text(f"audio,caption\n{manifest.parent / '0.wav'},{caption}\n")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.csv\n" for name in ("short", "long"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    [clip] = load_clips({"path": str(tmp_path), "name": "long"})
    assert clip.captions == ("the siren wails",)
    with pytest.raises(ValueError, match=r"Please pick one among the available configs: \['short', 'long'\]"):
        load_clips(str(tmp_path))


def test_folders_of_one_name_are_not_taken_for_each_other(tmp_path: Path, manifest: Path, load_clips) -> None:
    for place in ("one", "two", "two"):
        folder = tmp_path / place / "sounds"
        folder.mkdir(parents=True, exist_ok=True)
        caption = f"a siren {len(list(folder.iterdir()))} {place}"
        (folder / "all.csv").write_text(f"audio,caption\n{manifest.parent / '0.wav'},{caption}\n")
        (folder / "README.md").write_text("---\nconfigs:\n- config_name: all\n  data_files: all.csv\n---\n")
        [clip] = load_clips({"path": str(folder), "name": "all"})
        assert clip.captions == (caption,)


def test_a_saved_dataset_has_no_configurations(stored: Path, load_clips) -> None:
    with pytest.raises(ValueError, match="has no configurations, such as 'long'"):
        load_clips({"path": str(stored), "columns": COLUMNS, "name": "long"})


def test_a_missing_column_suggests_the_nearest(stored: Path, load_clips) -> None:
    with pytest.raises(ValueError, match=r"no column `caption`; it has .* Did you mean `captions`"):
        load_clips({"path": str(stored), "columns": {"audio": "sound"}})


def test_paths_are_relative_to_the_audio_folder(manifest: Path, load_clips) -> None:
    value = {"format": "dataset", "path": str(manifest), "audio_root": str(manifest.parent)}
    assert [clip.audio for clip in load_clips(value)] == [clip.audio for clip in read_manifest(manifest)]


def test_what_is_no_dataset_is_named(tmp_path: Path, load_clips) -> None:
    with pytest.raises(ValueError, match="cannot be opened as a dataset"):
        load_clips(str(tmp_path))


def embed(rows: dict) -> datasets.Dataset:
    """Rows with audio inside, made without torchcodec."""
    features = {"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
    texts = datasets.Value("string")
    features["caption"] = datasets.List(texts) if isinstance(rows["caption"][0], list) else texts
    dataset = datasets.Dataset.from_dict(rows, datasets.Features(features))
    return dataset.cast_column("audio", datasets.Audio(decode=False))


def test_bytes_that_are_no_audio_are_named(tmp_path: Path, load_clips) -> None:
    rows = {"audio": [{"bytes": b"noise", "path": None}], "caption": ["a"]}
    embed(rows).save_to_disk(tmp_path / "bad")
    [clip] = load_clips(str(tmp_path / "bad"))
    with pytest.raises(ValueError, match=r"bad, row 1: cannot be read as audio"):
        load_waveform(clip.audio)


def test_a_parquet_file_with_audio_inside(manifest: Path, tmp_path: Path, load_clips) -> None:
    rows = {"audio": [{"bytes": (manifest.parent / "0.wav").read_bytes(), "path": "0.wav"}], "caption": ["a siren"]}
    path = tmp_path / "sounds.parquet"
    embed(rows).to_parquet(path)
    [clip] = load_clips({"format": "dataset", "path": str(path)})
    assert len(load_waveform(clip.audio)) == soundfile.info(manifest.parent / "0.wav").frames
    with pytest.raises(ValueError, match="holds encoded audio"):
        load_clips(str(path))


@pytest.mark.parametrize("skip", [True, False])
def test_a_row_without_audio_is_left_out_of_the_cache(manifest: Path, make_set, tmp_path: Path, skip: bool) -> None:
    sounds = [{"bytes": Path(clip.audio).read_bytes(), "path": None} for clip in read_manifest(manifest)[:2]]
    embed({"audio": [sounds[0], None, sounds[1]], "caption": ["a", "b", "c"]}).save_to_disk(tmp_path / "stored")
    data = DataRecipe(str(tmp_path / "stored"), cache_features=str(tmp_path / "cache"), skip_bad_audio=skip)
    if not skip:
        with pytest.raises(ValueError, match="row 2 cannot be read"):
            make_set(data, seed=0)
        return
    training_set = make_set(data, seed=0)
    assert [training_set[row]["caption"] for row in range(3)] == ["a", "c", "c"]
    assert training_set.num_skipped == 1


def test_samples_without_their_rate_are_refused_and_lists_of_numpy_are_texts(tmp_path: Path, load_clips) -> None:
    rows = {"audio": [[0.0] * 500], "caption": [["one", "two"]]}
    datasets.Dataset.from_dict(rows).with_format("numpy").save_to_disk(tmp_path / "samples")
    with pytest.raises(ValueError, match=r"samples, row 1: the audio column holds samples without their rate"):
        load_clips({"path": str(tmp_path / "samples")})
    (tmp_path / "a.wav").touch()
    paths = datasets.Dataset.from_dict({"audio": [str(tmp_path / "a.wav")], "caption": [["one", "two"]]})
    paths.with_format("numpy").save_to_disk(tmp_path / "paths")
    [clip] = load_clips({"path": str(tmp_path / "paths")})
    assert clip.captions == ("one", "two")

"""What a recipe may say of data."""

from pathlib import Path

import pytest
from transformers import HfArgumentParser

from training_mac.recipe.data_fields import DataRecipe, Source, parse_sources
from training_mac.recipe.file import load_stages


def test_a_path_a_mapping_and_a_mixture() -> None:
    data = DataRecipe("", audio_root="sounds")
    assert parse_sources("a/train.csv", data) == [Source("a/train.csv", "manifest", audio_root="sounds")]
    one = {"format": "clotho", "path": "clotho.csv", "audio_root": "clotho"}
    mixture = parse_sources([one, {"path": "x/{0..3}.tar", "weight": 0.5}], data)
    assert [(source.format, source.audio_root, source.weight) for source in mixture] == [
        ("clotho", "clotho", 1.0),
        ("webdataset", "sounds", 0.5),
    ]
    assert parse_sources("someone/sounds", data)[0].format == "dataset" and parse_sources(None, data) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"format": "clohto", "path": "x.csv"}, "x.csv: no format 'clohto'. Did you mean 'clotho'"),
        ({"path": "x.csv", "wieght": 2}, "x.csv: a source has no field 'wieght'. Did you mean 'weight'"),
        ({"format": "clotho"}, "a mapping with `path`"),
        ({"path": "x.csv", "weight": 0}, "x.csv: `weight` is 0"),
        ({"path": "x.csv", "scene": "street"}, "x.csv: `scene` is 'street'; expected 'silence' or 'noise'"),
        ({"path": ["a.csv", "b.csv"]}, "a mixture is a list of mappings"),
    ],
)
def test_a_wrong_source_is_refused(value, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_sources(value, DataRecipe(""))


@pytest.mark.parametrize(
    "fields", [{"join_probability": 1.5}, {"join_probability": 0.6, "overlay_probability": 0.6}, {"min_excerpt": 0},
               {"max_windows": 0}]
)  # fmt: skip
def test_a_wrong_value_is_refused(fields: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        DataRecipe("", **fields)


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("tiny", {"manifest"}), ("own-data", {"manifest"}), ("audiocaps", {"audiocaps"}), ("clotho", {"clotho"}),
        ("openaqa", {"openaqa", "audiocaps"}),
    ],
)  # fmt: skip
def test_the_shipped_recipes_name_their_data(name: str, formats: set[str]) -> None:
    stages = load_stages([str(Path(__file__).parents[3] / "recipes" / f"{name}.yaml"), "--use_cpu", "--bf16", "false"])
    found = set()
    for stage in stages:
        for value in (stage.data.train_data, stage.data.eval_data):
            sources = parse_sources(value, stage.data)
            assert sources
            found |= {source.format for source in sources}
    assert found == formats


def test_a_mapping_comes_through_the_parser() -> None:
    [data] = HfArgumentParser(DataRecipe).parse_dict({"train_data": {"path": "x.csv"}, "time_shift": True})
    assert data.train_data == {"path": "x.csv"} and data.time_shift


@pytest.mark.parametrize(
    ("path", "format"),
    [
        ("data/shard-{000..012}.tar", "webdataset"), ("https://x.org/a.tar.gz?token=1", "webdataset"),
        ("sets/*.tar", "webdataset"), ("{a.tar,b.tar}", "webdataset"), ("my.target/sounds", "dataset"),
        ("user/sounds.tar.d", "dataset"), ("old.tar/clips.csv", "manifest"), ("birds.tar/stored", "dataset"),
    ],
)  # fmt: skip
def test_only_what_ends_as_an_archive_is_a_shard(path: str, format: str) -> None:
    assert parse_sources(path, DataRecipe(""))[0].format == format

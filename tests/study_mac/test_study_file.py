"""Which cells a study asks for, and what it refuses."""

import pytest
import yaml

from study_mac.cli import find_study
from study_mac.study_file import choose, read_study


BASE = {"train_data": "a.csv", "encoder": "full"}


@pytest.fixture
def write(tmp_path):
    def write(**fields):
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
        study = {
            "base": str(tmp_path / "base.yaml"),
            "output_dir": str(tmp_path / "study"),
            "axes": {"size": {"s": {"vocab_size": 300}, "l": {"vocab_size": 400}}, "encoder": ["full", "frozen"],
                     "encoder_from": {"own": None, "s": {"size": "s"}, "l": {"size": "l"}}, "seed": [0, 1]},
            "evaluations": {"e": {"task": "captioning", "data": "a.csv"}},
            "grid_axes": ["size", "encoder"],
            **fields,
        }  # fmt: skip
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(study, sort_keys=False))
        return read_study(path)

    return write


def test_one_at_a_time_and_grid(write) -> None:
    assert len(write().cells) == 3 * 2 and len(write(design="grid").cells) == 4 * 2
    names = [cell.name for cell in write().cells]
    assert names[0] == "size=s,encoder=full,encoder_from=own,seed=0"


def test_a_cell_that_takes_an_encoder_comes_after_it_and_in_its_shard(write) -> None:
    study = write(cells=[{"encoder_from": "l", "size": "s"}])
    (exchange, _) = [cell for cell in study.cells if cell["encoder_from"] == "l"]
    assert study.donor(exchange).name == "size=l,encoder=full,encoder_from=own,seed=0"
    assert study.recipe_of(exchange)["encoder"] == "frozen"
    shards = [choose(study, [], (number, 2)) for number in (1, 2)]
    assert sorted(cell.name for shard in shards for cell in shard) == sorted(cell.name for cell in study.cells)
    assert all(study.donor(cell) in (*shard, None) for shard in shards for cell in shard)


def test_only_chooses(write) -> None:
    assert {cell["seed"] for cell in choose(write(), ["seed=1"], None)} == {"1"}
    with pytest.raises(ValueError, match="--only size=xl: no such axis and value"):
        choose(write(), ["size=xl"], None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"axis": {}}, "no field 'axis'"),
        ({"design": "all"}, "`design` is 'all'"),
        ({"reference": {"size": "xl"}}, "axis 'size' has no value 'xl'"),
        ({"cells": [{"width": 3}]}, "no axis 'width'"),
        ({"scores": {"x": "f.y"}}, "expected EVALUATION.SCORE"),
        ({"evaluations": {"e": {"task": "guess", "data": "a"}}}, "and `data`, or `dataset` and `audio_root`"),
        ({"axes": {"width": [1, 2]}}, "expected values with their fields"),
        (
            {"set": {"base_model": "mac-tiny"}, "cells": [{"encoder_from": "l"}]},
            "`base_model`, whose encoder stays",
        ),
    ],
)
def test_what_is_refused(write, fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        write(**fields)


def test_an_axis_that_every_stage_overrides_is_refused(write, monkeypatch) -> None:
    monkeypatch.setitem(BASE, "stages", [{"encoder": "full"}, {"encoder": "frozen"}])
    with pytest.raises(ValueError, match="every stage of the base recipe has its own"):
        write()


def test_the_studies_that_ship() -> None:
    assert len(read_study(find_study("paper")).cells) == 27
    assert len(read_study(find_study("esc50")).cells) == 14 * 3
    for name in ("distillation", "modality"):
        assert len(read_study(find_study(name)).cells) == 2 * 3

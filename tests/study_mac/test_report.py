"""What a study's tables hold."""

import pytest
import yaml

from study_mac.report import tokens_table
from study_mac.study_file import read_study


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"train_data": "a.csv"}))
    study = {
        "base": "base.yaml",
        "output_dir": "study",
        "axes": {"connector": ["concat", "mean_pool"], "seed": [0, 1]},
        "evaluations": {
            "tokens": {"task": "tokens", "dataset": "audiocaps", "audio_root": "sounds", "tower": "eat"},
        },
        "scores": {},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return tmp_path / "study.yaml"


def measured(**models):
    scores = {name: {"scores": {"encoder_rank_95": {"value": value}}} for name, value in models.items()}
    return {"evaluations": {"tokens": {"results": {"models": scores}}}}


def test_an_untouched_tower_is_the_first_row_of_tokens(path) -> None:
    study = read_study(path)
    found = dict(zip(study.cells[:2], (measured(eat=9.0, model=4.0), measured(eat=9.0, model=6.0)), strict=True))
    tower, *rows = tokens_table(study, found)
    assert tower == {"connector": "eat", "encoder_rank_95": 9.0}
    assert [row["encoder_rank_95"] for row in rows] == [5.0]

"""What a study's tables hold."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from study_mac.report import check_scores, exchange_table, summary, tokens_table
from study_mac.study_file import Cell, Study, read_study


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
    clips = {f"{n}.wav": {"encoder_rank_95": models["model"] + n} for n in (-1, 0, 1)}
    return {"evaluations": {"tokens": {"results": {"models": scores}, "clips": clips}}}


def test_an_untouched_tower_is_the_first_row_of_tokens(path) -> None:
    study = read_study(path)
    found = dict(zip(study.cells[:2], (measured(eat=9.0, model=4.0), measured(eat=9.0, model=6.0)), strict=True))
    tower, *rows = tokens_table(study, found)
    assert tower == {"connector": "eat", "encoder_rank_95": 9.0}
    assert [row["encoder_rank_95"] for row in rows] == [5.0]
    assert (rows[0]["encoder_rank_95 min"], rows[0]["encoder_rank_95 max"]) == (4.0, 6.0)


def test_tokens_are_compared_with_the_reference_on_the_same_clips(path) -> None:
    study = read_study(path)
    found = dict(zip(study.cells, [measured(eat=9.0, model=4.0 + n) for n in range(4)], strict=True))
    _, reference, other = tokens_table(study, found)
    assert "encoder_rank_95 difference" not in reference
    assert [other[f"encoder_rank_95 {name}"] for name in ("difference", "low", "high")] == [2.0, 2.0, 2.0]


def test_a_mean_is_never_beside_its_range() -> None:
    values = [0.1] * 3  # whose mean is 0.10000000000000002
    assert summary("a", values) == {"a": 0.1, "a min": 0.1, "a max": 0.1}


def test_an_exchanged_encoder_is_compared_with_the_models_own() -> None:
    axes = {"size": {"s": {}, "l": {}}, "encoder_from": {"own": {}, "s": {"size": "s"}}, "seed": {"0": {}, "1": {}}}
    cells = [Cell((("size", size), ("encoder_from", donor), ("seed", seed)))
             for size, donor in (("s", "own"), ("l", "own"), ("l", "s")) for seed in "01"]  # fmt: skip
    study = Study(Path("s.yaml"), {}, Path("s"), axes, cells[0], tuple(cells), {}, {"hits": ("e", "hits")}, {})
    # With its own encoder a model is right on both clips; under the other's it fails on one, with one of two seeds.
    right = {cell: [1, 1] if cell["encoder_from"] == "own" else [int(cell["seed"]), 1] for cell in cells}
    found = {}
    for cell, hits in right.items():
        clips = {f"{n}.wav": {"hits": hit} for n, hit in enumerate(hits)}
        results = {"scores": {"hits": {"value": sum(hits) / 2}}}
        found[cell] = {"evaluations": {"e": {"results": results, "clips": clips}}}
    small, large = exchange_table(study, found)
    assert small["trained with"] == "s" and (small["l"], small["l min"], small["l max"]) == (0.75, 0.5, 1.0)
    assert small["l difference"] == -0.25 and small["l low"] == -0.5 and small["s"] == 1.0
    assert large == {"trained with": "l", "score": "hits", "l": 1.0, "l min": 1.0, "l max": 1.0}


def test_a_score_that_no_evaluation_has_is_refused(path) -> None:
    study = replace(read_study(path), scores={"CIDEr": ("tokens", "cider")})
    with pytest.raises(ValueError, match=r"`scores\.CIDEr`: tokens has no score 'cider'"):
        check_scores(study, {study.cells[0]: measured(eat=9.0, model=4.0)})
    skipped = {"evaluations": {"tokens": {"results": {"scores": {}, "skipped": {"cider": "no Java"}}}}}
    check_scores(study, {study.cells[0]: skipped})

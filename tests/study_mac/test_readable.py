"""Tables that a person reads: short, and with the same figures."""

from types import SimpleNamespace

import pytest

from study_mac.readable import readable
from study_mac.study_file import Cell


@pytest.fixture
def study():
    reference = Cell((("connector", "concat"), ("size", "s"), ("seed", "0")))
    axes = {"connector": {"concat": {}, "stack": {}}, "size": {"s": {}}, "seed": {"0": {}}}
    return SimpleNamespace(axes=axes, reference=reference, scores={"naming": ("e", "n")})


def test_a_cell_is_named_by_what_differs_and_has_its_range(study) -> None:
    first = {"connector": "concat", "size": "s", "seeds": 2, "naming": 0.5, "naming min": 0.4, "naming max": 0.6,
             "parameters": 1000, "training_hours": 0.5}  # fmt: skip
    second = {**first, "connector": "stack", "seeds": 1, "naming min": 0.5, "naming max": 0.5,
              "naming difference": 0.1, "naming low": -0.1,
              "naming high": 0.3, "naming p": 0.2}  # fmt: skip
    shown = readable(study, "results", [first, second])
    assert [row["cell"] for row in shown] == ["reference", "connector stack"]
    assert shown[0]["naming"] == "0.5 (0.4 to 0.6)" and shown[1]["naming"] == "0.5"
    assert shown[1]["naming, less the reference's"] == "+0.1 [-0.1 to 0.3]"
    assert shown[0]["parameters"] == "1,000" and shown[0]["minutes of training"] == "30"


def test_an_axis_has_a_row_a_value_and_no_column_that_never_varies(study) -> None:
    row = {"size": "s", "score": "naming", "concat": 0.5, "concat min": 0.4, "concat max": 0.6,
           "stack": 0.25, "stack - concat": -0.25, "stack - concat interval": "-0.3 to -0.2"}  # fmt: skip
    difference = "naming, less that of concat"
    assert readable(study, "connector", [row]) == [
        {"connector": "concat", "naming": "0.5 (0.4 to 0.6)", difference: ""},
        {"connector": "stack", "naming": "0.25", difference: "-0.25 [-0.3 to -0.2]"},
    ]


def test_tokens_have_ranges_and_differences_and_a_tower_its_name(study) -> None:
    rank = "encoder_rank_95"
    tower = {"connector": "EAT (tower)", "size": "EAT (tower)", "encoder_tokens": 512.0, rank: 3.0}
    row = {"connector": "stack", "size": "s", "seeds": 2, "encoder_tokens": 512.0, rank: 4.0, f"{rank} min": 3.5,
           f"{rank} max": 4.5, f"{rank} difference": 1.0, f"{rank} low": 0.5, f"{rank} high": 1.5}  # fmt: skip
    first, second = readable(study, "tokens", [tower, row])
    assert first["cell"] == "EAT (tower)" and second["cell"] == "connector stack"
    assert first["encoder: rank 95"] == "3" and second["encoder: rank 95"] == "4 (3.5 to 4.5)"
    assert second["encoder: rank 95, less the reference's"] == "+1 [0.5 to 1.5]"


def test_other_tables_lose_only_what_never_varies(study) -> None:
    rows = [{"connector": "concat", "size": "s", "rank": 1.0}, {"connector": "stack", "size": "s", "rank": 1.0}]
    assert readable(study, "runs", rows) == [
        {"connector": "concat", "rank": 1.0},
        {"connector": "stack", "rank": 1.0},
    ]

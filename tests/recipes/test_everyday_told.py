"""What is told of a scene is what its scores show."""

import sys
from pathlib import Path

import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
sys.path.insert(0, str(Path(__file__).parent))

from everyday_mixed import Scene
from everyday_scored import GRAMMAR, HIGH, LOW, PAD, TAGS, rows_of, scene_of
from everyday_told import Teller, Told, relation_of


TELLER = Teller(GRAMMAR)


def tell(scored: tuple[Scene, torch.Tensor, int]) -> tuple[list[str], str]:
    told = TELLER.tell(*scored)
    assert told.scores is scored[1]
    return told.names, told.relation


def sounds_of(scored: tuple[Scene, torch.Tensor, int], **options: bool) -> list[tuple[str, Told]]:
    return TELLER.sounds_of(*scored, **options)


def test_what_nobody_could_tell_is_told_in_general() -> None:
    assert tell(scene_of(["dog"], ["siren"], "single")) == (["animal"], "single")
    assert [told.names for _, told in sounds_of(scene_of(["dog"], ["siren"], "single"))] == [["animal"]]
    assert tell(scene_of(["rain"], ["siren"], "single")) == (["rain"], "single")  # nothing is true of it in general
    likely = torch.where(rows_of("siren", 8) == LOW, -2.0, HIGH)
    assert TELLER.name("dog", likely) == "dog"  # not that unlikely
    assert TELLER.name("dog", torch.full((8, len(TAGS)), LOW)) == "dog"  # behind nothing


def test_neighbours_that_are_told_alike_are_told_once() -> None:
    assert tell(scene_of(["dog", "animal"], ["siren", "animal"], "followed_by")) == (["animal"], "single")
    three = scene_of(["dog", "animal", "rain"], ["siren", "animal", "rain"], "sequence")
    assert tell(three) == (["animal", "rain"], "followed_by")
    assert tell(scene_of(["rain", "dog"], ["rain", "dog"], "while")) == (["rain", "dog"], "while")
    assert Told(torch.zeros(1), ["dog", "cat", "dog"]).merge().names == ["dog", "cat", "dog"]
    assert [relation_of(["x"] * count) for count in (1, 2, 3, 4)] == ["single", "followed_by", "sequence", "sequence"]


@pytest.mark.parametrize(
    ("relation", "rows", "expected"),
    [
        ("while", 0, (["siren"], "single")),
        ("behind", 0, (["siren"], "single")),
        ("while", 8, (["siren", "rain"], "while")),
        ("followed_by", 0, (["siren", "rain"], "followed_by")),
    ],
)
def test_what_is_not_audible_beside_another_sound_is_not_told(relation, rows, expected) -> None:
    """ "rain" is far behind all others, but in so many rows."""
    heard = rows_of("siren", 24)
    heard[:, TAGS.index("rain")] = LOW - 1
    heard[8 : 8 + rows, TAGS.index("rain")] = HIGH
    scores = torch.cat([heard, torch.full((24, len(TAGS)), PAD)])
    scene = Scene(Path("a.flac"), relation, [("siren", 0.0, 3.84), ("rain", 0.0, 3.84)], [], 1)
    assert tell((scene, scores, 24)) == expected


def test_sounds_that_are_alone_are_taken() -> None:
    pair = sounds_of(scene_of(["rain", "dog"], ["rain", "dog"], "followed_by"))
    assert [(kind, told.names) for kind, told in pair] == [("rain", ["rain"]), ("dog", ["dog"])]
    assert torch.equal(pair[1][1].scores, rows_of("dog", 8))
    assert sounds_of(scene_of(["cat", "siren"], ["cat", "siren"], "while")) == []
    short = Scene(Path("a.flac"), "single", [("dog", 0.0, 0.32)], [], 1)
    assert sounds_of((short, rows_of("dog", 16), 2)) == []


def test_what_nobody_has_learnt_is_told_in_general_whatever_its_scores() -> None:
    scored = scene_of(["dog"], ["dog"], "single")
    assert TELLER.tell_unknown(*scored[:2]).names == ["animal"]
    [(kind, told)] = sounds_of(scored, unknown=True)
    assert (kind, told.names) == ("dog", ["animal"])

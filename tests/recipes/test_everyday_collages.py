"""What is drawn to learn from is told as the scores say, and each collage is of whole windows."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
sys.path.insert(0, str(Path(__file__).parent))

import everyday_collages
from everyday_collages import Examples, fill, vary
from everyday_honest import Evidence
from everyday_mixed import Scene
from everyday_scored import GRAMMAR, PAD, ROWS, TAGS, rows_of, scene_of
from everyday_told import relation_of


KINDS = ("rain", "siren", "dog", "cat")


def make_examples(*more: tuple[Scene, torch.Tensor, int], unknown: dict[str, torch.Tensor] | None = None) -> Examples:
    scenes = [scene_of([kind], [kind], "single") for kind in KINDS]
    scenes += [scene_of(["rain", "dog"], ["rain", "dog"], "followed_by"), *more]
    told = {KINDS.index(kind): scores for kind, scores in (unknown or {}).items()}
    evidence = Evidence([heard for _, _, heard in scenes], [scores for _, scores, _ in scenes], told)
    return Examples([scene for scene, _, _ in scenes], evidence, GRAMMAR, ROWS)


def wordings(kind: str) -> set[str]:
    return {text for pair in GRAMMAR.kinds[kind].wording for text in pair}


def test_scenes_are_told_as_they_are() -> None:
    examples = make_examples()
    assert [(told.names, told.relation) for told in examples.scenes[3:]] == [
        (["cat"], "single"), (["rain", "dog"], "followed_by")
    ]  # fmt: skip
    assert {kind: len(sounds) for kind, sounds in examples.sounds.items()} == {
        "rain": 2,
        "siren": 1,
        "dog": 2,
        "cat": 1,
    }
    assert torch.equal(examples.sounds["dog"][1].scores, rows_of("dog", 8))
    assert examples.draw_scene(np.random.default_rng(0)) in examples.scenes


@pytest.mark.parametrize("long", [False, True])
def test_a_collage_is_of_its_sounds_in_order_and_then_padding(long: bool) -> None:
    examples, rng = make_examples(), np.random.default_rng(0)
    sizes, counts = set(), set()
    for _ in range(200):
        collage = examples.draw_collage(long, rng)
        assert len(collage.scores) % ROWS == 0
        heard = collage.scores[:, 0] > PAD
        end = int(heard.sum())
        assert heard[:end].all() and len(collage.scores) - end < ROWS  # padding to the end of the window alone
        best = collage.scores[:end][:, [TAGS.index(kind) for kind in KINDS]].argmax(1).tolist()
        changes = [KINDS[kind] for place, kind in enumerate(best) if place == 0 or best[place - 1] != kind]
        assert collage.names == changes and collage.relation == relation_of(changes)
        sizes.add(len(collage.scores) // ROWS)
        counts.add(len(changes))
    assert counts == ({1, 2, 3, 4} if long else {1, 2, 3})
    assert min(sizes) == 1 and max(sizes) > 3 if long else sizes == {1}
    assert max(sizes) <= 6


def test_kinds_that_nobody_has_learnt_are_told_in_general(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = torch.cat([torch.full((8, len(TAGS)), -3.0), torch.full((8, len(TAGS)), PAD)])
    examples = make_examples(unknown={"dog": strange, "cat": strange})
    assert [told.names for told in examples.unknown] == [["animal"], ["animal"]]
    assert set(examples.unknown_sounds) == {"dog", "cat"}
    for name, value in {"SHORT": 0.0, "LONG": 0.0, "UNKNOWN": 1.0}.items():
        monkeypatch.setattr(everyday_collages, name, value)
    captions = {examples.draw(np.random.default_rng(seed)).caption for seed in range(20)}
    assert captions <= wordings("animal")
    monkeypatch.setattr(everyday_collages, "UNKNOWN_SOUNDS", 1.0)
    sound = examples.draw_sound("dog", np.random.default_rng(0))
    assert sound.names == ["animal"] and torch.equal(sound.scores, strange[:8])
    assert examples.draw_sound("rain", np.random.default_rng(0)).names == ["rain"]
    monkeypatch.setattr(everyday_collages, "UNKNOWN_SOUNDS", 0.0)
    assert examples.draw_sound("dog", np.random.default_rng(0)).names == ["dog"]


def test_examples_are_drawn_by_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, drawn = make_examples(unknown={"dog": rows_of("cat", 16)}), []
    monkeypatch.setattr(examples, "draw_collage", lambda long, rng: drawn.append(long) or examples.scenes[0])
    monkeypatch.setattr(examples, "draw_scene", lambda rng: drawn.append(None) or examples.scenes[0])
    rng = np.random.default_rng(0)
    for _ in range(2000):
        examples.draw(rng)
    shares = [drawn.count(what) / 2000 for what in (False, True, None)]
    assert shares == pytest.approx([everyday_collages.SHORT, everyday_collages.LONG, 0.64], abs=0.04)


def test_an_example_depends_on_nothing_but_its_seed() -> None:
    examples = make_examples()
    one, again, other = (examples.draw(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(one.scores, again.scores) and one.caption == again.caption
    assert one.scores.shape != other.scores.shape or not torch.equal(one.scores, other.scores)


def test_scores_are_varied_alike_in_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.rand(30, 5) * 9 - 2.9  # all of it heard
    spreads = []
    for seed in range(5):
        varied = vary(scores, np.random.default_rng(seed))
        slopes = (varied[1:] - varied[:-1]) / (scores[1:] - scores[:-1])
        assert slopes.std() < 1e-3 and 0.9 <= slopes.mean() <= 1.3
        spreads.append(float((varied - scores * slopes.mean()).mean(0).std()))
    assert max(spreads) > 0.1  # each tag has an offset of its own
    monkeypatch.setattr(everyday_collages, "NOISE", 0.0)
    offsets = vary(torch.zeros(2, 5), np.random.default_rng(1))
    assert (offsets == offsets[0, 0]).all() and -0.5 <= offsets[0, 0] <= 0.5
    lower = vary(torch.tensor([[-1.0], [-2.0], [-4.0], [-5.0]]), np.random.default_rng(1))[:, 0].tolist()
    assert 1 < (lower[2] - lower[3]) / (lower[0] - lower[1]) <= 2.2  # what is not heard lies deeper


def test_scores_are_cut_and_repeated() -> None:
    scores, rng = torch.arange(5.0).unsqueeze(1), np.random.default_rng(0)
    assert fill(scores, 7, rng)[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert {tuple(fill(scores, 3, rng)[:, 0].tolist()) for _ in range(50)} == {(0, 1, 2), (1, 2, 3), (2, 3, 4)}


def test_seldom_kinds_are_drawn_more_often_than_they_are() -> None:
    examples = make_examples(*[scene_of(["rain"], ["rain"], "single")] * 14)
    drawn = examples.draw_kinds(3000, np.random.default_rng(0))
    assert all(one != other for one, other in pairwise(drawn))
    # The root of 16 is 4, beside those of 1, 2 and 1; that no neighbours are the same makes it somewhat less.
    assert 0.3 < drawn.count("rain") / 3000 < 0.54


def test_scenes_of_which_no_collage_can_be_made_are_refused() -> None:
    scene, scores, heard = scene_of(["rain"], ["rain"], "single")
    with pytest.raises(ValueError, match="have 1 kinds of sound that are heard alone for a second, and 1 of them end"):
        Examples([scene], Evidence([heard], [scores], {}), GRAMMAR, ROWS)
    scenes = [scene_of([kind], [kind], "single") for kind in KINDS]
    evidence = Evidence([8] * 4, [scores[:8] for _, scores, _ in scenes], {})
    with pytest.raises(ValueError, match=r"have 4 kinds of sound .* and 0 of them end a second before"):
        Examples([scene for scene, _, _ in scenes], evidence, GRAMMAR, ROWS)


def test_pauses_between_sounds_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = make_examples(scene_of(["silence"], ["silence"], "single"))
    assert "silence" not in examples.kinds
    monkeypatch.setattr(everyday_collages, "WITH_PAUSES", 1.0)
    silent = rows_of("silence", 1)[0]
    rng, quiet = np.random.default_rng(0), 0
    for _ in range(40):
        told = examples.draw_collage(True, rng)
        assert "silence" not in told.names and len(told.scores) % ROWS == 0
        quiet += bool((told.scores == silent).all(1).any())
    assert 15 < quiet < 40


def test_speech_at_once_with_something_is_drawn_more_often() -> None:
    more = (scene_of([one, "siren"], [one, "siren"], "while") for one in ("man", "rain"))
    chances = make_examples(*more).chances
    assert chances[-2] / chances[-1] == pytest.approx(everyday_collages.SPEECH_AT_ONCE)


def test_a_sound_may_be_followed_by_another_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everyday_collages, "SHORT_COUNTS", {1: 1.0})
    monkeypatch.setattr(everyday_collages, "WITH_PAUSES", 0.0)
    lengths = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(everyday_collages, "AGAIN", share)
        rng = np.random.default_rng(0)
        collages = [make_examples().draw_collage(False, rng) for _ in range(60)]
        assert all(len(told.names) == 1 and told.relation == "single" for told in collages)
        lengths[share] = np.mean([float((told.scores != PAD).any(1).sum()) for told in collages])
    assert lengths[1.0] > lengths[0.0] + 2


def test_two_sounds_may_be_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everyday_collages, "SHORT_COUNTS", {2: 1.0})
    monkeypatch.setattr(everyday_collages, "WITH_PAUSES", 0.0)
    monkeypatch.setattr(everyday_collages, "HALVES", 1.0)
    told = make_examples().draw_collage(False, np.random.default_rng(0))
    half = int(everyday_collages.HALF * ROWS)
    changes = (told.scores[1:] != told.scores[:-1]).any(1).nonzero().flatten() + 1
    assert changes.tolist() == [half, 2 * half]


def test_collages_have_as_many_sounds_as_their_shares_say() -> None:
    examples, rng = make_examples(), np.random.default_rng(0)
    for long, counts in ((False, everyday_collages.SHORT_COUNTS), (True, everyday_collages.LONG_COUNTS)):
        drawn = [len(examples.draw_collage(long, rng).names) for _ in range(1000)]
        assert [drawn.count(count) / 1000 for count in counts] == pytest.approx(list(counts.values()), abs=0.06)


def test_scenes_at_once_are_drawn_more_often_than_others() -> None:
    more = (scene_of(["rain", "siren"], ["rain", "siren"], relation) for relation in ("while", "followed_by"))
    chances = make_examples(*more).chances
    assert chances[-2] / chances[-1] == pytest.approx(everyday_collages.WEIGHTS["while"])

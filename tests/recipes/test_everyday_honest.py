"""The tags of a scene are told by scenes that share no recording with it, and of a kind by others if that is asked."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import everyday_honest
from everyday_grammar import Grammar
from everyday_honest import (
    EVERYONE,
    Evidence,
    HonestHeads,
    apply,
    gather_evidence,
    mean_stretches,
    principal_components,
)
from everyday_mixed import Scene, rows_between
from everyday_rows import Encoding, are_kept, keep_rows, kept_rows

from training_mac.objectives.cross_fitting import mask_of


GRAMMAR = Grammar()
TAGS = GRAMMAR.tags
WIDTH, ROWS, HEARD = 24, 16, 9
KINDS = ("rain", "siren", "dog", "cat", "man", "woman")
PARTS = 6


def ids_of(kind: str) -> list[int]:
    return sorted(TAGS.index(tag) for tag in GRAMMAR.tags_of(kind))


def make_scenes(count: int = 240) -> tuple[list[Scene], list[Encoding]]:
    """Scenes of one kind of sound, which shows in the tokens, and of two recordings; after it comes padding."""
    rng = torch.Generator().manual_seed(0)
    looks = torch.randn(len(KINDS) + 1, WIDTH, generator=rng)
    scenes, encodings = [], []
    for number in range(count):
        kind = number % len(KINDS)
        rows = looks[[kind] * HEARD + [len(KINDS)] * (ROWS - HEARD)] + 0.5 * torch.randn(ROWS, WIDTH, generator=rng)
        groups = [f"take-{number % 31}", f"take-{number * 7 % 31}"]
        end = HEARD * 0.16
        stretches = [(0.0, end, ids_of(KINDS[kind]))]
        events = [(KINDS[kind], 0.0, end)]
        scenes.append(Scene(Path(f"{number}.flac"), "single", events, stretches, mask_of(groups, PARTS)))
        encodings.append(Encoding(rows.half(), HEARD))
    return scenes, encodings


def own_head() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(WIDTH, len(TAGS), generator=rng) / 5, torch.randn(len(TAGS), generator=rng)


def told_otherwise(scenes: list[Scene], chosen: Callable[[Scene], bool]) -> list[Scene]:
    """The scenes, of which some have all that is rain as well."""
    return [
        replace(scene, stretches=[(a, b, sorted({*ids, *ids_of("rain")})) for a, b, ids in scene.stretches])
        if chosen(scene)
        else scene
        for scene in scenes
    ]


def test_a_scene_is_told_by_others_alone() -> None:
    scenes, encodings = make_scenes()
    mask = scenes[0].mask
    changed = told_otherwise(scenes, lambda scene: bool(scene.mask & mask))
    assert sum(a != b for a, b in zip(scenes, changed, strict=True)) > 40
    before, after = (HonestHeads(some, encodings, own_head(), GRAMMAR).weights for some in (scenes, changed))
    assert torch.equal(before[mask], after[mask])
    apart = [other for other in before if not other & mask]
    assert apart and not any(torch.allclose(before[other], after[other], atol=1e-3) for other in apart)


def test_scores_follow_those_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the curve that makes scores of what is told knows of all scenes, and is the same for all of them."""
    monkeypatch.setattr(everyday_honest, "TRUST", 0.0)
    scenes, encodings = make_scenes()
    mask, rain = scenes[0].mask, TAGS.index("rain")
    changed = told_otherwise(scenes, lambda scene: bool(scene.mask & mask))
    one, other = (
        gather_evidence(some, encodings, own_head(), GRAMMAR, np.random.default_rng(0)).scores
        for some in (scenes, changed)
    )
    alike = [number for number, scene in enumerate(scenes) if scene.mask == mask]
    apart = [number for number, scene in enumerate(scenes) if not scene.mask & mask]

    def agreement(numbers: list[int]) -> float:
        pairs = torch.stack(
            [torch.cat([some[number][:, rain].float() for number in numbers]) for some in (one, other)]
        )
        return torch.corrcoef(pairs)[0, 1].item()

    assert len(alike) > 2 and agreement(alike) > 0.9999
    assert agreement(apart) < 0.999


def test_scenes_are_partly_told_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes, encodings = make_scenes()
    heads = HonestHeads(scenes, encodings, own_head(), GRAMMAR)
    everyone, others = (apply(heads.head(mask), encodings[0]) for mask in (EVERYONE, scenes[0].mask))
    assert (everyone - others).abs().max() > 0.1
    for trust in (0.0, 1.0, 0.5):
        monkeypatch.setattr(everyday_honest, "TRUST", trust)
        told = gather_evidence(scenes, encodings, own_head(), GRAMMAR, np.random.default_rng(3)).scores[0].float()
        share = np.random.default_rng(3).uniform(0, trust)
        torch.testing.assert_close(told, others + share * (everyone - others), atol=0.02, rtol=2e-3)


def test_what_is_heard_is_told_and_padding_says_nothing() -> None:
    scenes, encodings = make_scenes()
    evidence = gather_evidence(scenes, encodings, own_head(), GRAMMAR, np.random.default_rng(0))
    assert evidence.heard == [HEARD] * len(scenes) and evidence.scores[0].shape == (ROWS, len(TAGS))
    scores = torch.stack(evidence.scores).float()
    kinds = [TAGS.index(kind) for kind in ("rain", "siren", "dog", "cat")]
    for number, scene in enumerate(scenes[:100]):
        if scene.events[0][0] in ("rain", "siren", "dog", "cat"):
            best = scores[number, :HEARD].mean(0)[kinds].argmax()
            assert TAGS[kinds[int(best)]] == scene.events[0][0]
    assert scores[:, HEARD + 1 :, kinds].max() < scores[:, :HEARD, kinds].max() - 5
    assert scores[:, HEARD + 1 :, kinds].mean() < -3


def test_what_the_teacher_does_not_hear_moves_along_with_speech() -> None:
    scenes, encodings = make_scenes()
    weight, bias = own_head()
    evidence = gather_evidence(scenes, encodings, (weight, bias), GRAMMAR, np.random.default_rng(0))
    speech, child, dog = (TAGS.index(tag) for tag in ("speech", "child", "dog"))
    own = encodings[5].rows.float() @ weight + bias
    told = evidence.scores[5].float()
    expected = told[:, speech] + own[:, child] - own[:, speech]
    torch.testing.assert_close(told[:, child], expected, atol=0.02, rtol=2e-3)
    assert (told[:, dog] - told[:, speech] - own[:, dog] + own[:, speech]).abs().min() > 0.02


def test_a_kind_that_is_not_learnt_is_told_by_other_kinds() -> None:
    scenes, encodings = make_scenes()
    mask, dog, rain = scenes[0].mask, TAGS.index("dog"), TAGS.index("rain")
    changed = told_otherwise(scenes, lambda scene: scene.events[0][0] == "dog")
    one, other = (HonestHeads(some, encodings, own_head(), GRAMMAR) for some in (scenes, changed))
    fitted = [heads.moments.fit(mask, heads.labels[:, dog] > 0) for heads in (one, other)]
    torch.testing.assert_close(*fitted, atol=1e-4, rtol=1e-3)
    assert fitted[0][:, dog].abs().max() < 1e-3  # nothing is a dog any more
    assert (one.weights[mask] - other.weights[mask])[:, rain].abs().max() > 0.05
    evidence = gather_evidence(scenes, encodings, own_head(), GRAMMAR, np.random.default_rng(0))
    asked = {number for number, scene in enumerate(scenes) if scene.events[0][0] in ("dog", "cat")}
    assert set(evidence.unknown) == asked  # the others have no broader kind, or one that is not told by itself
    known, unknown = (scores[2].float()[:HEARD, dog].mean() for scores in (evidence.scores, evidence.unknown))
    assert known > unknown + 3


def test_no_more_is_left_out_than_the_kind() -> None:
    scenes, encodings = make_scenes()
    heads = HonestHeads(scenes, encodings, own_head(), GRAMMAR)
    left_out = torch.zeros(len(heads.labels), dtype=torch.bool)
    torch.testing.assert_close(heads.moments.fit(scenes[0].mask, left_out), heads.weights[scenes[0].mask])


def test_stretches_and_padding_are_means_of_their_rows() -> None:
    rows = torch.arange(16.0).unsqueeze(1).expand(-1, 2).half()
    scene = Scene(Path("a"), "followed_by", [], [(0.0, 0.32, [3]), (0.32, 1.28, [1, 2])], 5)
    means, labels, masks = mean_stretches([scene], [Encoding(rows, 8)], 4)
    assert means[:, 0].tolist() == [0.5, 4.5, 12.0]  # the row in which the sound ends is neither
    assert labels.tolist() == [[0, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]] and masks.tolist() == [5, 5, 5]
    means, _, _ = mean_stretches([scene], [Encoding(rows[:14], 8)], 4)
    assert len(means) == 2  # too little padding to tell what it is like


@pytest.mark.parametrize(
    ("first", "end", "rows"),
    [(0.0, 0.16, (0, 1)), (0.5, 1.0, (3, 6)), (0.5, 0.5, (3, 4)), (1.5, 9.0, (9, 10)), (7.0, 8.0, (9, 10))],
)
def test_rows_of_seconds(first: float, end: float, rows: tuple[int, int]) -> None:
    assert rows_between(first, end, 10) == slice(*rows)


@pytest.mark.parametrize("border", [0.4, 0.56, 0.72, 0.8, 1.04])
def test_neighbours_share_no_row_and_leave_none_out(border: float) -> None:
    assert rows_between(0, border, 20).stop == rows_between(border, 2.0, 20).start


def test_components_have_one_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    means = torch.randn(900, 6, generator=rng) * torch.tensor([9.0, 3.0, 1.0, 0.3, 0.1, 0.0]) + 5
    centre, project = principal_components(means)
    told = (means - centre) @ project
    assert told.shape == (900, 6) and told.isfinite().all()
    torch.testing.assert_close(told[:, :5].std(0), torch.ones(5), atol=0.01, rtol=0)
    assert told[:, 5].abs().max() < 0.1  # what does not vary is not blown up
    assert principal_components(means[:4])[1].shape == (6, 3)
    monkeypatch.setattr(everyday_honest, "COMPONENTS", 2)
    assert principal_components(means)[1].shape == (6, 2)


def test_rows_and_evidence_are_kept(tmp_path: Path) -> None:
    encodings = [Encoding(torch.randn(rows, 6).half(), heard) for rows, heard in ((16, 9), (8, 8), (24, 17))]
    path = tmp_path / "0.float16"
    assert not are_kept(path)
    keep_rows(path, iter(encodings))
    assert are_kept(path)
    for one, other in zip(kept_rows(path, 6), encodings, strict=True):
        assert torch.equal(one.rows, other.rows) and one.heard == other.heard
    evidence = Evidence([9, 8], [one.rows for one in encodings[:2]], {1: encodings[1].rows})
    evidence.save(tmp_path / "evidence.pt")
    loaded = Evidence.load(tmp_path / "evidence.pt")
    assert loaded.heard == [9, 8] and torch.equal(loaded.scores[1], loaded.unknown[1])


def test_rows_that_are_not_all_written_are_not_there(tmp_path: Path) -> None:
    def encodings():
        yield Encoding(torch.zeros(8, 6).half(), 8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_rows(tmp_path / "0.float16", encodings())
    assert not are_kept(tmp_path / "0.float16") and list(tmp_path.iterdir()) == []

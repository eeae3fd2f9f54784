"""The tags of a scene are told by others alone, and as likely as they are."""

import pytest
import torch

from training_mac.objectives.cross_fitting import PartedMoments, cross_fit, mask_of
from training_mac.objectives.teacher_targets import TeacherTargets


TAGS = ["man", "rain", "siren"]


def make_targets(scenes: int = 300) -> TeacherTargets:
    """Scenes of two groups in 30 each with rain, a siren or both; two directions of the embeddings show these."""
    rng = torch.Generator().manual_seed(0)
    targets = TeacherTargets(TAGS)
    for number in range(scenes):
        rain, siren, man = (torch.rand(3, generator=rng) < 0.5).tolist()
        embeddings = torch.randn(2, 8, generator=rng)
        embeddings[:, 0] += 3.0 * rain
        embeddings[:, 1] += 3.0 * siren
        tags = [name for name, there in zip(TAGS, (man, rain, siren), strict=True) if there]
        groups = [f"take-{number % 30}", f"take-{number * 7 % 30}"]
        targets.add(f"{number}.flac", embeddings, [(0.0, 1.9, tags)], groups)
    return targets


def test_a_scene_is_told_by_others_alone() -> None:
    targets = make_targets()
    before = cross_fit(targets, 6)
    mask = mask_of(targets.groups[0], 6)
    for number, groups in enumerate(targets.groups):
        if mask_of(groups, 6) & mask:  # its own tags, and those of all that share a part with it
            targets.stretches[number] = [(first, end, [0, 1, 2]) for first, end, _ in targets.stretches[number]]
    after = cross_fit(targets, 6)
    alike = [number for number, groups in enumerate(targets.groups) if mask_of(groups, 6) == mask]
    apart = [number for number, groups in enumerate(targets.groups) if not mask_of(groups, 6) & mask]

    def agreement(numbers: list[int]) -> float:
        """Correlation of the scores of rain; the curve that made them scores has changed, yet for all scenes alike."""
        pairs = torch.stack([torch.cat([told[number][:, 1] for number in numbers]) for told in (before, after)])
        return torch.corrcoef(pairs)[0, 1].item()

    assert len(alike) > 3 and agreement(alike) > 0.99999
    assert agreement(apart) < 0.999  # there it does make a difference


def test_scores_are_likelihoods_that_hold() -> None:
    targets = make_targets(600)
    told = torch.stack([scores.mean(0) for scores in cross_fit(targets, 8)]).sigmoid()
    heard = torch.tensor([[tag in ids for tag in range(3)] for ((_, _, ids),) in targets.stretches])
    assert ((told[:, 1:] > 0.5) == heard[:, 1:]).float().mean() > 0.9
    assert (told[:, 0] - 0.5).abs().mean() < 0.15  # the embeddings say nothing of a man: nobody can be sure
    torch.testing.assert_close(told.mean(0), heard.float().mean(0), atol=0.03, rtol=0)


def test_rows_that_are_left_out_have_no_part_in_a_fit() -> None:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.cat([torch.randn(200, 6, generator=rng), torch.ones(200, 1)], dim=1)
    labels = (torch.rand(200, 3, generator=rng) < 0.3).float()
    masks = 1 << torch.randint(4, (200,), generator=rng)
    left_out = labels[:, 1] > 0
    fitted = PartedMoments(inputs, labels, masks).fit(0b101, left_out)
    kept = ~left_out & (masks & 0b101 == 0)
    expected = PartedMoments(inputs[kept], labels[kept], masks[kept]).fit(0)
    torch.testing.assert_close(fitted, expected)
    with pytest.raises(ValueError, match="or have the kind that is left out; expected recordings of more groups"):
        PartedMoments(inputs, labels, masks).fit(0b101, torch.ones(200, dtype=torch.bool))


def test_what_cannot_be_parted_is_refused() -> None:
    targets = make_targets(40)
    targets.groups[3] = []
    with pytest.raises(ValueError, match=r"3\.flac does not say which recordings it is of"):
        cross_fit(targets, 6)
    targets.groups = [["a", "b"]] * len(targets.files)
    with pytest.raises(ValueError, match="All scenes share parts with some scene; expected"):
        cross_fit(targets, 6)

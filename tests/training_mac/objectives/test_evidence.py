"""An encoding is moved until its scores are those that others tell, and no further."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_mac import MacConfig, MacForConditionalGeneration
from training_mac.objectives.embeddings import EmbeddingPupil
from training_mac.objectives.evidence import OFFSETS, SCALES, EvidenceOfOthers
from training_mac.objectives.teacher_targets import TeacherTargets


TAGS = ["man", "rain", "siren"]


def make_model(**settings) -> MacForConditionalGeneration:
    torch.manual_seed(0)
    config = MacConfig(
        connector_hidden_size=8,
        audio_config={
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "window_frames": 64,
        },
        text_config={
            "model_type": "mamba2",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_heads": 4,
            "head_dim": 16,
            "state_size": 8,
            "vocab_size": 40,
        },
        audio_token_id=39,
        **settings,
    )
    return MacForConditionalGeneration(config)


def make_targets() -> TeacherTargets:
    """A recording of two windows of 0.64 s, of which one second is no padding: one embedding of the teacher."""
    targets = TeacherTargets(TAGS)
    targets.add("a.flac", torch.zeros(1, 4), [(0.0, 0.96, ["rain"])], ["take"])
    return targets


def scores(model: MacForConditionalGeneration, states: torch.Tensor) -> torch.Tensor:
    """The scores of the tags in each row of patches, (rows, tags), as the connector reads them."""
    connector = model.model.connector
    units = connector.linear_1(connector.arrange(states[:, 1:])).flatten(0, 1)
    return units[:, : len(TAGS)] - EmbeddingPupil.doubt


@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_an_embedding_s_rows_get_the_scores_that_are_told(shared: bool) -> None:
    model = make_model()
    layer = model.model.connector.linear_1
    if shared:  # as `hand_over` leaves it: the mean of the tokens counts; else each column has weights of its own
        layer.weight[:3] = layer.weight[:3, :32].repeat(1, 8)
    told = torch.tensor([[5.0, 2.0, -3.0]])
    change = EvidenceOfOthers(model.model, make_targets(), [told], {"man": "rain"})
    states = torch.randn(2, 33, 32)
    moved = change(states, "x/a.flac", np.random.default_rng(3))
    rng = np.random.default_rng(3)
    scale, offset = rng.uniform(*SCALES), rng.uniform(*OFFSETS)
    before, after = scores(model, states), scores(model, moved)
    torch.testing.assert_close(after[:6, 1:].mean(0), scale * told[0, 1:] + offset, rtol=1e-4, atol=1e-4)
    beside = [one[:6, 0] - one[:6, 1] for one in (before, after)]
    torch.testing.assert_close(*beside, rtol=1e-4, atol=1e-4)  # the certain tag moves along with rain
    varied = [one[:6] - one[:6].mean(0) for one in (before, after)]
    torch.testing.assert_close(*varied, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after[6:], before[6:])  # the padding
    assert torch.equal(moved[:, 0], states[:, 0]) and moved.shape == states.shape


@torch.no_grad()
def test_the_scores_go_over_into_each_other() -> None:
    model, targets = make_model(), TeacherTargets(TAGS)
    targets.add("a.flac", torch.zeros(2, 4), [(0.0, 1.28, ["rain"])], ["take"])
    change = EvidenceOfOthers(model.model, targets, [torch.tensor([[0.0, -8.0, 0.0], [0.0, 8.0, 0.0]])], {})
    states = torch.zeros(2, 33, 32)  # nothing varies but what is moved
    moved = change(states, "a.flac", np.random.default_rng(0))[:, 1:].reshape(8, -1)
    steps = moved.diff(dim=0).norm(dim=1)
    assert steps.max() < 0.5 * (moved[7] - moved[0]).norm()  # no row tells where a sound begins


def test_a_recording_that_was_cut_is_refused() -> None:
    targets = TeacherTargets(TAGS)
    targets.add("a.flac", torch.zeros(9, 4), [(0.0, 8.0, ["rain"])], ["take"])
    change = EvidenceOfOthers(make_model().model, targets, [torch.zeros(9, 3)], {})
    with pytest.raises(ValueError, match=r"a\.flac is longer than `max_windows`"):
        change(torch.zeros(2, 33, 32), "a.flac", np.random.default_rng(0))


def test_scores_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="no tag is named cat; expected some of man, rain, siren"):
        EvidenceOfOthers(make_model().model, make_targets(), [torch.zeros(2, 3)], {"man": "cat"})
    many = TeacherTargets([str(number) for number in range(9)])
    with pytest.raises(ValueError, match="the connector does not hold the scores of 9 tags"):
        EvidenceOfOthers(make_model().model, many, [], {})
    with pytest.raises(ValueError, match="does not hold the scores"):
        EvidenceOfOthers(make_model(connector_type="mean_pool").model, make_targets(), [torch.zeros(2, 3)], {})


@pytest.fixture
def teacher_file(manifest: Path, tmp_path: Path) -> str:
    """The targets of the four recordings of the manifest, each of a group of its own."""
    targets = TeacherTargets(TAGS)
    with open(manifest, newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            tags = [TAGS[number % 3], "rain"]
            targets.add(row["audio"], torch.randn(4, 8), [(0.0, 2.0, tags)], [f"take-{number}"])
    targets.save(tmp_path / "targets.safetensors")
    return str(tmp_path / "targets.safetensors")


def test_captions_are_learnt_from_what_others_tell(write_recipe, train, weights_after, teacher_file, tmp_path) -> None:
    heard = {"objective": "embeddings", "teacher_targets": [teacher_file], "kept_patches": 32}
    spoken = {"encoder": "frozen", "connector": "frozen", "cached_epochs": 1}
    told = spoken | {"teacher_targets": [teacher_file], "cross_fitted_tags": 64, "certain_tags": {"man": "rain"}}
    plain = weights_after(train(write_recipe(stages=[heard, spoken])), 2)
    other = weights_after(train(write_recipe(stages=[heard, told], output_dir=str(tmp_path / "other"))), 2)
    name = "model.connector.linear_1.weight"
    assert torch.equal(plain[name], other[name])
    assert any(not torch.equal(plain[one], other[one]) for one in plain if "language_model" in one)


FROZEN = {"encoder": "frozen", "connector": "frozen", "cached_epochs": 1}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"certain_tags": {"man": "rain"}}, "`certain_tags` are those that"),
        (FROZEN | {"cross_fitted_tags": 2, "teacher_targets": ["t"]}, "expected 0, or 3 parts or more"),
        (
            {"encoder": "frozen", "connector": "frozen", "cross_fitted_tags": 8},
            "it needs captions and `cached_epochs`",
        ),
        ({"encoder": "frozen", "cached_epochs": 1, "cross_fitted_tags": 8}, "needs `connector: frozen`"),
        (FROZEN | {"cross_fitted_tags": 8}, "`teacher_targets` is missing: `cross_fitted_tags`"),
        (
            FROZEN | {"cross_fitted_tags": 8, "teacher_targets": ["t"], "min_excerpt": 0.5},
            "`min_excerpt`: the teacher",
        ),
        (FROZEN | {"cross_fitted_tags": 8, "teacher_targets": ["none"]}, "none: no such file; expected the targets"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(write_recipe, train, fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        train(write_recipe(**fields))

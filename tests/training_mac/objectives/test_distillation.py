"""Distillation: what the losses are, that a student imitates, that an equal encoder runs once, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from modeling_mac.modeling_eat import EatModel
from processing_mac import load_captioner
from training_mac.objectives.distillation import imitation_loss, similarity_loss


HALF = {
    "audio_config": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "window_frames": 512,
    },
    "text_config": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_heads": 4, "head_dim": 8, "state_size": 16, "n_groups": 1,
    },
}  # fmt: skip


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "stage-1" / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_the_imitation_is_a_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 5, 7, generator=generator)
    assert imitation_loss(theirs, theirs, 2.0).abs() < 1e-6
    p = (theirs / 2).softmax(-1)
    expected = 4 * (p * (p.log() - (ours / 2).log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(imitation_loss(ours, theirs, 2.0), expected)
    padded = functional.pad(ours, (0, 3), value=9.0)  # rows of the vocabulary that no token has
    torch.testing.assert_close(imitation_loss(padded, theirs, 2.0), expected)


def test_similarities_need_no_equal_widths() -> None:
    tokens = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert similarity_loss(3 * tokens, functional.pad(tokens, (0, 5))).abs() < 1e-6
    assert similarity_loss(tokens, tokens.flip(0)) > 0.01


def student_of(base: Path, **fields) -> dict:
    return {
        "objective": "distillation", "distill_from": str(base), "tokenizer": str(base), "encoder_of": str(base),
        "encoder": "frozen", "model": HALF, "vocab_size": None, "eval_data": None, "naming": None,
    } | fields  # fmt: skip


def write(write_recipe, **fields) -> Path:
    path = write_recipe(**fields)
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.endswith(" null")))
    return path


def test_a_smaller_student_imitates(base, write_recipe, train, monkeypatch, manifest, captioned_by_a_stranger) -> None:
    """The equal, frozen encoder runs once a batch; the student captions where the packages are not installed."""
    seen = []
    forward = EatModel.forward
    monkeypatch.setattr(EatModel, "forward", lambda *args, **kwargs: seen.append(1) or forward(*args, **kwargs))
    folder = train(write(write_recipe, **student_of(base, distill_weight=1.0, max_steps=60, learning_rate=1e-2)))
    found = losses(folder)
    assert found[-1] < 0.1 * found[0]
    assert len(seen) == 60
    recording = manifest.parent / "0.wav"
    expected = load_captioner(folder, device="cpu")(str(recording))[0]["caption"]
    assert captioned_by_a_stranger(folder, recording) == expected


def test_another_encoder_and_hidden_states(base, write_recipe, train) -> None:
    fields = student_of(base, distill_hidden_weight=1.0, distill_weight=0.0, encoder="full", max_steps=2)
    del fields["encoder_of"]
    assert len(losses(train(write(write_recipe, **fields)))) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokenizer": None}, r"the vocabulary of .* differs from the student's"),
        ({"model": HALF | {"connector_type": "mean_pool"}}, "has `audio_tokens_per_window` .*, the student"),
        ({"distill_from": None}, "give both or neither"),
        ({"objective": "captions"}, "give both or neither"),
        ({"distill_temperature": 0.0}, "expected more than 0"),
        ({"distill_weight": 0.0}, "nothing would be imitated"),
        ({"label_smoothing_factor": 0.1}, "soft already"),
        ({"distill_from": "nowhere/at/all"}, "is not there"),
    ],
)
def test_what_cannot_be_is_refused(base, write_recipe, train, fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        train(write(write_recipe, **student_of(base, **fields)))

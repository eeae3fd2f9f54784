"""MOHAWK: upstream's golden losses, and a tiny transformer MAC that becomes a discrete Mamba-2 in three stages."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_mac import MacForConditionalGeneration
from training_mac.objectives.distillation import imitation_loss
from training_mac.objectives.mohawk import (
    block_losses,
    hidden_distance,
    make_student,
    matrix_distance,
    soft_cross_entropy,
)
from training_mac.recipe.fields import Recipe
from training_mac.run.building import make_base


FIXTURE = Path(__file__).parents[2] / "fixtures" / "phi_mamba_tiny.safetensors"
KINDS = {"phi": {}, "gpt_neox": {}, "llama": {"num_key_value_heads": 2}}


def test_golden_losses() -> None:
    golden = load_file(FIXTURE)

    def same(found: torch.Tensor, name: str) -> None:
        torch.testing.assert_close(found, golden[f"out.loss.{name}"], rtol=1e-5, atol=1e-4)

    for layer in range(2):
        ours, theirs = (golden[f"out.{name}.{layer}"] for name in ("student.transfer_matrix", "teacher.attention"))
        same(matrix_distance(ours, theirs), f"matrices.{layer}")
        for part in ("mixer", "block"):
            ours, theirs = (golden[f"out.{who}.{part}.{layer}"] for who in ("student", "teacher"))
            same(hidden_distance(ours, theirs), f"hidden_{part}.{layer}")
    logits, targets = (golden[f"out.{who}.logits"].flatten(0, 1) for who in ("student", "teacher"))
    for temperature in (1, 2):
        same(soft_cross_entropy(logits, targets, temperature), f"logits.temperature{temperature}")


def test_padding_does_not_count() -> None:
    ours, theirs = torch.randn(2, 1, 2, 5, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    real = matrix_distance(ours[..., :3, :3], theirs[..., :3, :3])
    torch.testing.assert_close(matrix_distance(ours, theirs, mask), real)
    ours, theirs = torch.randn(2, 1, 5, 4)
    torch.testing.assert_close(hidden_distance(ours, theirs, mask), hidden_distance(ours[:, :3], theirs[:, :3]))


@pytest.fixture(scope="module")
def make_teacher(tmp_path_factory):
    """Makes a tiny random MAC on a transformer."""

    def make(kind: str) -> Path:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("teachers") / kind
        audio = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        text = {"model_type": kind, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                "intermediate_size": 64, **KINDS[kind]}  # fmt: skip
        model = {"audio_config": {**audio, "window_frames": 128}, "text_config": text}
        make_base(Recipe(model=model, vocab_size=300), "What?", ["the siren wails", "the rain falls"], folder)
        return folder

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_everything_but_the_attention_is_copied(make_teacher, kind) -> None:
    teacher = MacForConditionalGeneration.from_pretrained(make_teacher(kind))
    student = make_student(teacher, {"state_size": 8, "attention_layers": [1]})
    ours, theirs = student.model.language_model.backbone.state_dict(), teacher.model.language_model.state_dict()
    first = {name for name in theirs if "layers.0." in name and "attention." in name.replace("self_attn", "attention")}
    assert first
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name not in first)
    assert torch.equal(student.lm_head.weight, teacher.lm_head.weight)


def falls(parameters, compute, steps: int) -> float:
    """Give the last loss as a share of the first."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = compute()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[-1] / losses[0]


def test_each_stage_falls_to_a_tenth(make_teacher) -> None:
    teacher = MacForConditionalGeneration.from_pretrained(make_teacher("phi"), attn_implementation="eager").eval()
    for parameter in teacher.parameters():
        if parameter.dim() > 1:  # attention that depends on the tokens, and no mean over all
            torch.nn.init.normal_(parameter, std=0.3)
    teacher.requires_grad_(False)
    student = make_student(teacher, {"state_size": 16})
    language_model = student.model.language_model
    mixers = [layer.self_attn for layer in language_model.layers]
    inputs = {"input_ids": torch.randint(3, 250, (2, 11), generator=torch.Generator().manual_seed(0))}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    learning = [parameter for mixer in mixers for parameter in mixer.parameters()]
    for compares in ("matrices", "hidden"):
        assert falls(learning, lambda: block_losses(language_model, teacher, inputs, compares).sum(), 400) < 0.1  # noqa: B023
    targets = teacher(**inputs).logits.flatten(0, 1)
    torch.nn.init.normal_(student.lm_head.weight, std=0.2)  # so that there is something left to learn
    compute = lambda: imitation_loss(student(**inputs).logits.flatten(0, 1), targets, 1.0)  # noqa: E731
    assert falls(student.parameters(), compute, 300) < 0.1


def test_a_recipe_runs_the_stages(make_teacher, write_recipe, train, weights_after) -> None:
    """In the first two nothing but the mixers changes, and in the first only what the matrices depend on."""
    stages = [{"mohawk_stage": name, "max_steps": 2} for name in ("matrices", "hidden", "logits")]
    recipe = write_recipe(
        objective="mohawk", distill_from=str(make_teacher("llama")), weight_decay=0.0, stages=stages,
        model={"text_config": {"model_type": "mac_discrete_mamba2", "state_size": 8, "attention_layers": [1]}},
    )  # fmt: skip
    lines = recipe.read_text().splitlines()
    recipe.write_text("\n".join(line for line in lines if not line.startswith(("vocab_size", "eval_data", "naming"))))
    folder = train(recipe)
    base = load_file(folder / "base" / "model.safetensors")
    first, second, third = (weights_after(folder, number) for number in (1, 2, 3))
    changed = {name.split("layers.0.self_attn.")[-1] for name in base if not torch.equal(base[name], first[name])}
    assert changed == {"in_proj.weight", "conv1d.weight", "conv1d.bias", "D"}
    assert all("layers.0.self_attn." in name for name in base if not torch.equal(first[name], second[name]))
    assert any("mlp" in name for name in base if not torch.equal(second[name], third[name]))
    model = MacForConditionalGeneration.from_pretrained(folder)
    assert model.config.text_config.model_type == "mac_discrete_mamba2"

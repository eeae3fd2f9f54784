"""MOHAWK: upstream's golden losses, and a tiny transformer MAC that becomes a discrete Mamba-2 in three stages."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from modeling_mac import MacConfig, MacForConditionalGeneration
from processing_mac import load_captioner
from training_mac.objectives.distillation import imitation_loss
from training_mac.objectives.mohawk import (
    block_losses,
    hidden_distance,
    make_student,
    matrix_distance,
)
from training_mac.recipe.fields import Recipe
from training_mac.run.building import make_base


CPU2 = Path(__file__).parents[3] / "recipes" / "accelerate" / "cpu2.yaml"
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
    # The third stage leaves the teacher's entropy out, on which the student has no influence.
    entropy = torch.distributions.Categorical(logits=targets).entropy().mean()
    same(imitation_loss(logits, targets, 1.0) + entropy, "logits.temperature1")


def test_golden_losses_of_a_student_and_its_teacher() -> None:
    """Upstream's teacher and student layers under a MAC: each block is fed what the teacher's block is fed."""
    golden = load_file(FIXTURE)
    text = {"model_type": "phi", "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 128, "partial_rotary_factor": 0.5}  # fmt: skip
    audio = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    unused = min({*range(40)} - {*golden["in.input_ids"].flatten().tolist()})
    config = MacConfig(
        audio_config={**audio, "window_frames": 128},
        text_config=text,
        audio_token_id=unused,
        tie_word_embeddings=False,
    )
    teacher = MacForConditionalGeneration(config).eval()
    teacher.set_attn_implementation("eager")
    given = {name.removeprefix("sd.teacher."): one for name, one in golden.items() if name.startswith("sd.teacher.")}
    renamed = {name.replace("model.", "model.language_model.", 1): one for name, one in given.items()}
    assert not teacher.load_state_dict(renamed, strict=False).unexpected_keys
    student = make_student(teacher, {"state_size": 8}).model.language_model
    for index, layer in enumerate(student.layers):
        prefix = f"sd.student.layers.{index}."
        given = {name.removeprefix(prefix): one for name, one in golden.items() if name.startswith(prefix)}
        layer.load_state_dict({name.replace("mixer.", "self_attn."): one for name, one in given.items()})
    inputs = {"input_ids": golden["in.input_ids"]}
    for compares, name in (("matrices", "matrices"), ("hidden", "hidden_block")):
        expected = torch.stack([golden[f"out.loss.{name}.{index}"] for index in range(2)])
        found = block_losses(student, teacher, inputs, compares)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


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


@pytest.fixture
def write_mohawk(make_teacher, write_recipe):
    """Writes a recipe of the stages on a tiny llama; fields that are None are left out."""

    def write(**fields) -> Path:
        text = {"model_type": "mac_discrete_mamba2", "state_size": 8, "attention_layers": [1]}
        usual = {"objective": "mohawk", "distill_from": str(make_teacher("llama")), "model": {"text_config": text},
                 "vocab_size": None, "eval_data": None, "naming": None, "weight_decay": 0.0}  # fmt: skip
        recipe = write_recipe(**usual | fields)
        settings = {name: value for name, value in yaml.safe_load(recipe.read_text()).items() if value is not None}
        recipe.write_text(yaml.safe_dump(settings))
        return recipe

    return write


BLOCKS = [{"mohawk_stage": "matrices", "max_steps": 2}, {"mohawk_stage": "hidden", "max_steps": 2}]


def test_a_recipe_runs_the_stages(write_mohawk, train, weights_after) -> None:
    """In the first two nothing but the mixers changes, and in the first only what the matrices depend on."""
    folder = train(write_mohawk(stages=[*BLOCKS, {"mohawk_stage": "logits", "max_steps": 2}]))
    base = load_file(folder / "base" / "model.safetensors")
    first, second, third = (weights_after(folder, number) for number in (1, 2, 3))
    changed = {name.split("layers.0.self_attn.")[-1] for name in base if not torch.equal(base[name], first[name])}
    assert changed == {"in_proj.weight", "conv1d.weight", "conv1d.bias", "D"}
    assert all("layers.0.self_attn." in name for name in base if not torch.equal(first[name], second[name]))
    assert any("mlp" in name for name in base if not torch.equal(second[name], third[name]))
    model = MacForConditionalGeneration.from_pretrained(folder)
    assert model.config.text_config.model_type == "mac_discrete_mamba2"


def test_the_recipe_that_ships(make_teacher, manifest, train, captioned_by_a_stranger, tmp_path) -> None:
    """A few steps of it on a tiny Phi; what comes of it captions where the packages are not installed."""
    folder = tmp_path / "run"
    changed = {"output_dir": folder, "distill_from": make_teacher("phi"), "train_data": manifest, "audio_root": "null",
               "cache_features": tmp_path / "features", "dataloader_num_workers": 0, "use_cpu": True, "max_steps": 3,
               "warmup_steps": 1, "lr_scheduler_kwargs": "{num_decay_steps: 1}", "per_device_train_batch_size": 2,
               "gradient_accumulation_steps": 2, "logging_steps": 1, "disable_tqdm": True}  # fmt: skip
    train("mohawk", *(str(word) for name, value in changed.items() for word in (f"--{name}", value)))
    assert len(losses(folder)) == 9 and all(math.isfinite(loss) for loss in losses(folder))
    recording = manifest.parent / "0.wav"
    expected = load_captioner(folder, device="cpu")(str(recording))[0]["caption"]
    assert captioned_by_a_stranger(folder, recording) == expected


def losses(folder: Path) -> list[float]:
    """What the stages have logged."""
    states = [json.loads(file.read_text()) for file in sorted(folder.glob("stage-*/trainer_state.json"))]
    return [entry["loss"] for state in states for entry in state["log_history"] if "loss" in entry]


def test_two_processes_equal_one(write_mohawk, manifest, train, in_process, weights_after, tmp_path) -> None:
    """Same losses and weights: the gradients of blocks that are compared side by side are shared."""
    same = manifest.with_name("same_words.csv")  # a batch's mean over tokens is then that of its halves
    same.write_text("audio,caption\n" + "".join(f"{index}.wav,the rain falls\n" for index in range(4)))
    fields = {"train_data": str(same), "stages": BLOCKS}
    one = train(write_mohawk(**fields, output_dir=str(tmp_path / "one")))
    recipe = write_mohawk(**fields, per_device_train_batch_size=2, output_dir=str(tmp_path / "two"))
    result = in_process("-m", "accelerate.commands.launch", "--config_file", CPU2, "train.py", recipe)
    assert result.returncode == 0, result.stderr
    assert "2 processes" in result.stdout
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=1e-4) and len(losses(one)) == 4
    for stage in (1, 2):
        ours, theirs = weights_after(one, stage), weights_after(tmp_path / "two", stage)
        for name, tensor in ours.items():
            torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.mark.parametrize("stage", ["matrices", "hidden", "logits"])
def test_half_precision_is_used_and_changes_little(write_mohawk, train, monkeypatch, tmp_path, stage) -> None:
    """Under `bf16` student and teacher project in bfloat16; the losses are nearly those of float32."""
    seen: list[tuple[str, torch.dtype]] = []
    linear = torch.nn.functional.linear

    def spy(*arguments, **options):
        output = linear(*arguments, **options)
        seen.append((stage, output.dtype))
        return output

    fields = {"stages": [{"mohawk_stage": stage, "max_steps": 2}]}
    full = losses(train(write_mohawk(**fields, output_dir=str(tmp_path / "full"))))
    monkeypatch.setattr(torch.nn.functional, "linear", spy)
    half = losses(train(write_mohawk(**fields, bf16=True, output_dir=str(tmp_path / "half"))))
    assert {dtype for _, dtype in seen} == {torch.bfloat16}
    assert half == pytest.approx(full, rel=0.03) and half != full


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": "captions", "distill_from": None, "mohawk_stage": "hidden"}, "`mohawk_stage` does nothing for"),
        ({"objective": "distillation", "mohawk_stage": "logits"}, "`mohawk_stage` does nothing for"),
        ({"objective": "captions", "distill_from": None, "distill_weight": 0.3}, "`distill_weight` does nothing for"),
        ({"connector": "full"}, "`connector: full`: `mohawk_stage: matrices` trains the mixers"),
        ({"mohawk_stage": "hidden", "language_model": "frozen"}, "`language_model: frozen`: `mohawk_stage: hidden`"),
        ({"distill_temperature": 1.0}, "`distill_temperature` does nothing in `mohawk_stage: matrices`"),
        ({"connector_learning_rate": 1e-3}, "`connector_learning_rate` does nothing in"),
        ({"language_model": "lora", "mohawk_stage": "logits"}, "A recipe with LoRA cannot have `objective: mohawk`"),
        ({"tokenizer": "mac-tiny"}, "`tokenizer`: the student of `objective: mohawk` is made of `distill_from`"),
        ({"base_audio_tower": "mac-tiny", "base_language_model": "mac-tiny"}, "`base_audio_tower`: the student of"),
        ({"model": {"audio_config": {"hidden_size": 64}}}, "`model.audio_config.hidden_size`: the student of"),
        ({"model": {"connector_type": "scan"}}, "`model.connector_type`: the student of `objective: mohawk` has that"),
        ({"model": {"text_config": {"source": {}}}}, "`model.text_config.source`: the student of"),
        ({"model": {"text_config": {"model_type": "mamba2"}}}, "is 'mamba2'; `objective: mohawk` makes a"),
        ({"model": {"text_config": {"states": 8}}}, "DiscreteMamba2Config has no field 'states'"),
        (
            {"model": {"text_config": {"attention_layers": [7]}}},
            "`model.text_config`: .*names \\[7\\]; expected 0 to 1",
        ),
        ({"packing": True}, "`packing` needs a language model that keeps packed clips apart"),
    ],
)
def test_what_would_be_ignored_is_refused(write_mohawk, train, fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        train(write_mohawk(**fields))


def test_what_does_not_belong_together(write_mohawk, make_teacher, base, train, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"'mac_discrete_mamba2' language model, which a run .* this one is 'llama'"):
        train(write_mohawk(base_model=str(make_teacher("llama")), model={}))
    folder = train(write_mohawk(stages=BLOCKS[:1]))
    with pytest.raises(ValueError, match=r"is not the 'llama' of 2 layers of 32 .* but a 'phi'"):
        train(write_mohawk(base_model=str(folder), distill_from=str(make_teacher("phi")), model={},
                           output_dir=str(tmp_path / "other")))  # fmt: skip
    with pytest.raises(ValueError, match=r"is a 'mamba2'; MOHAWK makes a Mamba of a transformer, gpt_neox"):
        train(write_mohawk(distill_from=str(base), output_dir=str(tmp_path / "third")))

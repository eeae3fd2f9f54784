"""What trains is what the recipe says, and an adapter is one small folder that fits its base."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from text_configs import text_config
from torch import nn
from transformers import AutoModelForMultimodalLM

from modeling_mac import EatConfig, MacConfig, MacForConditionalGeneration
from processing_mac import load_captioner
from processing_mac.cli_mac import main as mac_caption
from training_mac.loop.adapters import attach_adapter, module_to_train, parameter_groups, part_of, set_trainable
from training_mac.recipe.fields import Recipe
from training_mac.release.hub import find_files
from training_mac.run.building import load_base


def batch_for(model: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    config = model.config
    audio = [config.audio_token_id] * config.audio_tokens_per_window
    ids = torch.tensor([[*audio, 5, 6, 7, 8]] * 2)
    return {"input_ids": ids, "labels": ids.masked_fill(ids == config.audio_token_id, -100),
            "input_features": torch.randn(2, 512, 128)}  # fmt: skip


def disturb(model: nn.Module) -> None:
    """Give everything that learns another value: a new LoRA does nothing yet."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))


WAYS = list(itertools.product(["frozen", "lora", "full"], ["frozen", "full"], ["frozen", "lora", "full"]))[1:]


@pytest.mark.parametrize(("encoder", "connector", "language_model"), WAYS)
def test_every_combination_trains_what_it_says(base, encoder, connector, language_model) -> None:
    recipe = Recipe(encoder=encoder, connector=connector, language_model=language_model, lora_rank=2)
    model = module_to_train(attach_adapter(load_base(str(base))[0], [recipe]), [recipe])
    set_trainable(model, recipe)
    model.train()(**batch_for(model)).loss.backward()
    for name, parameter in model.named_parameters():
        way, is_lora = getattr(recipe, part_of(name)), "lora_" in name
        learns = way == ("lora" if is_lora else "full") and "original_module" not in name
        # What only CLS has a say in has no effect here, and B = 0 keeps A's first gradient at zero.
        assert (parameter.grad is not None) == learns, name
    matrices = [name for name, _ in model.named_parameters() if "lora_B" in name]
    expected = {"language_model": 2 * 2, "encoder": 2 * 2}  # targets * layers
    assert len(matrices) == sum(n for part, n in expected.items() if getattr(recipe, part) == "lora")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_lora_matrix_gets_a_gradient(base, packed: bool, checkpointing: bool) -> None:
    recipe = Recipe(encoder="lora", connector="full", language_model="lora", lora_rank=2)
    model = attach_adapter(load_base(str(base))[0], [recipe])
    set_trainable(model, recipe)
    disturb(model)
    if checkpointing:
        model.activation_checkpointing_enable()
    batch = batch_for(model)
    if packed:
        clip = torch.arange(2, dtype=torch.int32).repeat_interleave(batch["input_ids"].shape[1])[None]
        batch = {**batch, **{name: batch[name].view(1, -1) for name in ("input_ids", "labels")}, "seq_idx": clip}
    model.train()(**batch).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if "lora_" in name}
    assert len(gradients) == 16 and all(gradient.abs().sum() > 0 for gradient in gradients.values())


def test_activation_checkpointing_changes_no_gradient(base) -> None:
    recipe = Recipe(encoder="full", language_model="lora")
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = attach_adapter(load_base(str(base))[0], [recipe])
        set_trainable(model, recipe)
        if checkpointing:
            model.activation_checkpointing_enable()
        model.train()(**batch_for(model)).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_a_frozen_encoder_keeps_no_activations(base) -> None:
    """Activation checkpointing asks for gradients of every embedding: the frozen encoder's must not be among them."""
    model, _ = load_base(str(base))
    set_trainable(model, Recipe(encoder="frozen"))
    model.activation_checkpointing_enable()
    tokens = model.train().get_audio_features(torch.randn(1, 512, 128), return_dict=True)
    assert not tokens.last_hidden_state.requires_grad and tokens.pooler_output.requires_grad


def test_learning_rates_by_part_and_depth() -> None:
    rates = {"encoder_learning_rate": 1.0, "connector_learning_rate": 3.0, "language_model_learning_rate": 4.0}
    recipe = Recipe(**rates, encoder_layer_decay=0.5)
    model = nn.ModuleDict({
        "audio_tower": nn.ModuleDict({"embeddings": nn.Linear(1, 1),
                                      "layers": nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])}),
        "connector": nn.Linear(1, 1), "language_model": nn.Linear(1, 1), "lm_head": nn.Linear(1, 1),
    })  # fmt: skip
    groups = parameter_groups(model, recipe, 2.0, 0.1, {name for name, _ in model.named_parameters() if "w" in name})
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    rates_of = {name: found[id(parameter)] for name, parameter in model.named_parameters()}
    assert rates_of["audio_tower.embeddings.weight"][0] == 0.25 and rates_of["audio_tower.layers.0.weight"][0] == 0.5
    assert rates_of["audio_tower.layers.1.weight"] == (1.0, 0.1) and rates_of["connector.bias"] == (3.0, 0.0)
    assert rates_of["language_model.weight"][0] == rates_of["lm_head.weight"][0] == 4.0
    others = parameter_groups(model, Recipe(), 2.0, 0.1, set())
    assert [group["lr"] for group in others] == [2.0]  # parts without a rate of their own


def test_audio_and_text_learn_by_loras_of_their_own(base) -> None:
    both = ["in_proj", "out_proj"]
    recipe = Recipe(base_model=str(base), language_model="lora", lora_rank=2, lora_by_modality=True,
                    merge_adapter=True, encoder="frozen", connector="frozen",
                    model={"modality_projections": both})  # fmt: skip
    model, _ = load_base(str(base), recipe.model)
    dense, _ = load_base(str(base))
    batch = batch_for(model)
    with torch.no_grad():
        assert torch.equal(model.eval()(**batch).logits, dense.eval()(**batch).logits)
    adapted = attach_adapter(model, [recipe])
    set_trainable(adapted, recipe)
    learning = {name.split(".lora_")[0].split(".")[-1] for name, p in adapted.named_parameters() if p.requires_grad}
    assert learning == {*both, "in_proj_audio", "out_proj_audio"}
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], 1.0)
    adapted.train()(**batch).loss.backward()
    optimizer.step()
    with torch.no_grad():
        before = adapted.eval()(**batch).logits
        torch.testing.assert_close(adapted.merge_and_unload()(**batch).logits, before, rtol=1e-4, atol=1e-4)
    mixer = model.model.language_model.layers[0].mixer
    assert not torch.equal(mixer.in_proj.weight, mixer.in_proj_audio.weight)
    with pytest.raises(ValueError, match="modality_projections"):
        attach_adapter(load_base(str(base))[0], [recipe])
    recipe.merge_adapter = False
    with pytest.raises(ValueError, match="merge_adapter"):
        attach_adapter(model, [recipe])


LLAMA = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "vocab_size": 300}  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [{"connector_type": "scan", "connector_scan": "cross"}, {"modality_projections": ["in_proj", "out_proj"]},
     {"text_config": {"model_type": "mac_discrete_mamba2", "source": LLAMA}}],
    ids=["scan", "modality", "discrete"],
)  # fmt: skip
def test_weight_decay_never_reaches_a_state_space(fields, make_config) -> None:
    """Neither the language model's nor the connector's, with each of its ways."""
    model = MacForConditionalGeneration(make_config(**fields))
    names = {name for name, _ in model.named_parameters()}
    groups = parameter_groups(model, Recipe(), 2.0, 0.1, names)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0 if name.endswith((".A_log", ".D", ".dt_bias")) else 0.1), name
    kept = {name.split(".")[1] for name in names if name.endswith(".D")}
    assert kept == ({"connector", "language_model"} if "connector_type" in fields else {"language_model"})


def test_an_adapter_folder_loads_captions_and_merges(base, write_recipe, train, manifest, tmp_path, capsys) -> None:
    recipe = write_recipe(base_model=str(base), encoder="full", language_model="lora", lora_rank=4, learning_rate=0.02,
                          loss_on="all")  # fmt: skip
    folder = train(recipe)
    assert not (folder / "config.json").exists() and not (folder / "base").exists()
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["lora_alpha"] == 8 and settings["base_model_name_or_path"] == str(base)

    bare, _ = load_base(str(base))
    wrapped = PeftModel.from_pretrained(load_base(str(base))[0], folder).eval()
    batch = batch_for(bare)
    logits = wrapped(**batch).logits
    assert (bare.eval()(**batch).logits - logits).abs().max() > 1e-2
    for loaded in (MacForConditionalGeneration.from_pretrained(folder),
                   AutoModelForMultimodalLM.from_pretrained(folder)):  # fmt: skip
        assert torch.equal(loaded.eval()(**batch).logits, logits)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(merged(**batch).logits, logits, atol=1e-5, rtol=1e-5)

    whole = train(recipe, "--output_dir", str(tmp_path / "merged"), "--merge_adapter", "true")
    loaded = MacForConditionalGeneration.from_pretrained(whole).eval()
    torch.testing.assert_close(loaded(**batch).logits, logits, atol=1e-5, rtol=1e-5)
    capsys.readouterr()
    for model in (folder, whole):
        assert mac_caption(["--model", str(model), str(manifest.parent / "0.wav")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_an_adapter_is_a_base_and_gives_its_encoder(base, write_recipe, train, tmp_path, capsys, manifest) -> None:
    """Merged with the model below it, so that what comes of it is whole or an adapter on a model of its own."""
    fields = {"base_model": str(base), "encoder": "full", "language_model": "lora", "learning_rate": 0.02}
    first = train(write_recipe(**fields, output_dir=str(tmp_path / "first")))
    learnt = load_base(str(first))[0]
    assert not isinstance(learnt, PeftModel) and not any("lora" in name for name in learnt.state_dict())

    further = {**fields, "base_model": str(first), "learning_rate": 0.0, "max_steps": 1}
    second = train(write_recipe(**further, output_dir=str(tmp_path / "second")))
    assert json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"] == str(second / "base")
    third = train(write_recipe(**further, output_dir=str(tmp_path / "third")), "--merge_adapter", "true")
    batch = batch_for(learnt)
    for folder in (first, second, third):
        loaded = MacForConditionalGeneration.from_pretrained(folder).eval()
        torch.testing.assert_close(loaded(**batch).logits, learnt.eval()(**batch).logits, atol=1e-5, rtol=1e-5)
    capsys.readouterr()
    assert mac_caption(["--model", str(second), str(manifest.parent / "0.wav")]) == 0

    shutil.rmtree(second / "base")
    with pytest.raises(ValueError, match=r"second cannot be loaded: it is an adapter of .*second/base, which is not"):
        load_captioner(str(second))
    with pytest.raises(ValueError, match="second/base is missing, from which the run in"):
        train(write_recipe(**further, output_dir=str(tmp_path / "second")))
    with pytest.raises(ValueError, match=r"second: it is an adapter of .*second/base, which is not there"):
        train(write_recipe(**{**further, "base_model": str(second)}, output_dir=str(tmp_path / "fourth")))

    new = train(write_recipe(encoder_of=str(first), encoder="frozen", max_steps=1, output_dir=str(tmp_path / "new")))
    found = MacForConditionalGeneration.from_pretrained(new).model.audio_tower.state_dict()
    for name, tensor in learnt.model.audio_tower.state_dict().items():
        assert torch.equal(tensor, found[name]), name


@pytest.mark.parametrize("field", ["base_model", "encoder_of"])
def test_nothing_learns_from_weights_of_8_bits(base, write_recipe, train, tmp_path, field) -> None:
    rounded = MacForConditionalGeneration.from_pretrained(base).to_int8()
    rounded.save_pretrained(tmp_path / "rounded")
    load_base(str(base))[1].save_pretrained(tmp_path / "rounded")
    with pytest.raises(ValueError, match="rounded holds weights of 8 bits, from which nothing learns"):
        train(write_recipe(**{field: str(tmp_path / "rounded")}))


def test_frozen_parts_stay_bit_identical(base, write_recipe, train) -> None:
    recipe = write_recipe(base_model=str(base), encoder="frozen", connector="frozen", max_steps=2)
    after = MacForConditionalGeneration.from_pretrained(train(recipe)).state_dict()
    before = load_base(str(base))[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "language_model" in name or "lm_head" in name}


def test_stages_share_one_adapter(base, write_recipe, train, weights_after) -> None:
    """LTU's way: the connector alone, then everything; the outcome is one folder."""
    recipe = write_recipe(
        base_model=str(base), encoder="full", language_model="lora", lora_rank=2, max_steps=2,
        stages=[{"encoder": "frozen", "language_model": "frozen"}, {}],
    )  # fmt: skip
    folder = train(recipe)
    first, second = weights_after(folder, 1), weights_after(folder, 2)
    assert first.keys() == second.keys()
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved >= {name for name in first if "audio_tower" in name or "lora_B" in name}
    untouched = load_base(str(base))[0].state_dict()
    for name, tensor in first.items():
        if "audio_tower" in name:
            plain = name.replace("base_model.model.", "").replace("modules_to_save.default.", "")
            assert torch.equal(tensor, untouched[plain]), name
        if "lora_B" in name:
            assert not tensor.any()
    assert (Path(folder) / "adapter_model.safetensors").stat().st_size < sum(
        file.stat().st_size for file in base.glob("*.safetensors")
    )


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"encoder": "lora"}, {"encoder": "full"}], "`encoder` is 'lora' in one stage and 'full' in another"),
        ([{"encoder": "lora"}, {"encoder": "lora", "lora_rank": 4}], "`lora_rank` differs between the stages"),
        ([{"encoder": "lora"}, {"encoder": "lora", "objective": "tags"}], "cannot learn tags"),
    ],
)
def test_stages_that_do_not_fit_are_refused(base, stages: list[dict], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach_adapter(load_base(str(base))[0], [Recipe(**stage) for stage in stages])


def test_lora_where_a_language_model_reads_past_it_is_refused() -> None:
    """And where it can be used, on the same model, it is put in."""
    audio = EatConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    config = MacConfig(audio_config=audio, text_config=text_config("jamba"), audio_token_id=63)
    model = MacForConditionalGeneration(config)
    recipe = Recipe(encoder="frozen", language_model="lora", lora_targets=["in_proj", "dt_proj"])
    message = r"`lora_targets` names layers\.0\.mamba\.dt_proj of a 'jamba' .*past an adapter"
    with pytest.raises(ValueError, match=message):
        attach_adapter(model, [recipe])
    attach_adapter(model, [dataclasses.replace(recipe, lora_targets=["in_proj"])])


def test_nothing_to_train_is_refused(base) -> None:
    with pytest.raises(ValueError, match="nothing would train"):
        set_trainable(load_base(str(base))[0], Recipe(encoder="frozen", connector="frozen", language_model="frozen"))


def test_a_finished_run_holds_one_form(base, write_recipe, train, capsys) -> None:
    """Merging it later, as publishing advises, leaves no adapter beside the whole model; and back again."""
    recipe = write_recipe(base_model=str(base), language_model="lora", max_steps=1)
    folder = train(recipe)
    (folder / "model-00001-of-00002.safetensors").touch()  # of larger weights, from before
    card = folder / "README.md"
    card.write_text(card.read_text() + "Words by hand.\n")
    train(recipe, "--merge_adapter", "true")
    names = {file.name for file in folder.iterdir() if file.is_file()}
    assert {"config.json", "model.safetensors"} <= names
    assert not [name for name in names if name.startswith(("adapter", "model-0"))]
    assert "This is an adapter for" not in card.read_text() and "library_name: transformers" in card.read_text()
    assert "Words by hand." in (folder / "README.earlier.md").read_text()
    assert "its card told of an adapter; it is kept as README.earlier.md" in capsys.readouterr().out
    assert "adapter_config.json" not in find_files(folder) and "README.earlier.md" not in find_files(folder)
    train(recipe)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {file.name for file in folder.iterdir()}
    assert not (folder / "model.safetensors").exists() and not (folder / "config.json").exists()

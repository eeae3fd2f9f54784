"""LoRA, layer-wise learning rates and tags reach every kind of audio tower."""

import json
import re

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from modeling_mac import MacConfig, MacForConditionalGeneration
from training_mac.loop.adapters import attach_adapter, check_lora_targets, parameter_groups, set_trainable
from training_mac.recipe.fields import Recipe


TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1}
WHISPER = {
    "model_type": "mac_whisper", "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "max_source_positions": 160,
}  # fmt: skip
SSAMBA = {"model_type": "mac_ssamba", "hidden_size": 32, "num_hidden_layers": 2, "window_frames": 320}
EAT = {"model_type": "mac_eat", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
       "intermediate_size": 64, "window_frames": 320}  # fmt: skip
TARGETS = {
    "mac_eat": ["qkv", "proj", "fc1", "fc2"],
    "mac_ssamba": ["in_proj", "out_proj", "x_proj", "x_proj_b", "dt_proj", "dt_proj_b"],
    "mac_whisper": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}
TOWERS = [EAT, SSAMBA, WHISPER]


def config_of(audio: dict) -> MacConfig:
    connector = "stack" if audio["model_type"] == "mac_whisper" else "concat"
    text = {"model_type": "mamba2", "vocab_size": 64, **TEXT}
    return MacConfig(audio_config=dict(audio), text_config=text, audio_token_id=60, connector_type=connector)


def batch_for(model: MacForConditionalGeneration) -> dict[str, torch.Tensor]:
    tokens, audio = model.config.audio_tokens_per_window, model.config.audio_config
    ids = torch.tensor([[60] * tokens + [5, 6, 7]])
    return {"input_ids": ids, "labels": ids, "input_features": torch.randn(1, audio.window_frames, audio.num_mel_bins)}


@pytest.mark.parametrize("audio", TOWERS, ids=lambda audio: audio["model_type"])
def test_lora_learns_on_every_layer_of_the_tower(audio) -> None:
    targets = TARGETS[audio["model_type"]]
    recipe = Recipe(encoder="lora", language_model="frozen", lora_rank=2, encoder_lora_targets=targets)
    check_lora_targets([recipe], config_of(audio))
    model = attach_adapter(MacForConditionalGeneration(config_of(audio)), [recipe])
    assert isinstance(model, PeftModel)
    set_trainable(model, recipe)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.train()(**batch_for(model.get_base_model())).loss.backward()
    learnt = {name: parameter.grad for name, parameter in model.named_parameters() if "lora_" in name}
    assert all(grad is not None and grad.abs().max() > 0 for grad in learnt.values())
    for target in targets:  # in each of the two blocks both matrices
        assert sum(f".{target}.lora_" in name for name in learnt) == 4, target


@pytest.mark.parametrize("audio", TOWERS, ids=lambda audio: audio["model_type"])
def test_names_of_another_tower_are_refused_with_the_right_ones(audio) -> None:
    other = next(tower for tower in TOWERS if tower["model_type"] != audio["model_type"])["model_type"]
    wrong = sorted(set(TARGETS[other]) - set(TARGETS[audio["model_type"]]))
    recipe = Recipe(encoder="lora", language_model="frozen", encoder_lora_targets=wrong)
    with pytest.raises(ValueError, match=r"`encoder_lora_targets`: no .* to adapt; this model has ") as refused:
        check_lora_targets([recipe], config_of(audio))
    assert set(TARGETS[audio["model_type"]]) <= set(re.findall(r"\w+", str(refused.value)))


@pytest.mark.parametrize("audio", TOWERS, ids=lambda audio: audio["model_type"])
def test_the_learning_rate_falls_from_block_to_block(audio) -> None:
    model = MacForConditionalGeneration(config_of(audio))
    recipe = Recipe(encoder_learning_rate=1.0, encoder_layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, recipe, 3.0, 0.0, set())
    rates = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    for name, rate in rates.items():
        if "audio_tower" not in name:
            assert rate == 3.0, name
        elif ".layers." in name:
            assert rate == (1.0 if ".layers.1." in name else 0.5), name
    tower = [name for name in rates if "audio_tower" in name]
    assert any(rates[name] == 0.25 for name in tower), "what stands before the blocks"


@pytest.mark.parametrize("audio", [SSAMBA, WHISPER], ids=lambda audio: audio["model_type"])
def test_tags_teach_every_tower(write_recipe, train, audio) -> None:
    connector = config_of(audio).connector_type
    folder = train(write_recipe(
        model={"audio_config": audio, "text_config": TEXT, "connector_type": connector}, objective="tags",
        max_steps=20, learning_rate=1e-2,
    ))  # fmt: skip
    log = json.loads((folder / "stage-1" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    weights, new = (load_file(path / "model.safetensors") for path in (folder, folder / "base"))
    changed = {name for name in new if not torch.equal(weights[name], new[name])}
    assert any(".audio_tower." in name for name in changed) and "model.connector.linear_1.weight" in changed

import json

import pytest
import torch
from safetensors.torch import save_file

from modeling_mac import EatConfig, EatForAudioClassification, EatModel
from modeling_mac.conversion_eat_mac import convert_eat_state_dict, eat_config_from_state_dict, load_eat
from modeling_mac.weight_files_mac import load_strictly


CONFIG = EatConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, num_labels=5)
POSITIONS = "modality_encoders.IMAGE.fixed_positional_encoder.positions"
STYLES = ("original_pretrain", "original_finetune", "released_pretrain", "released_finetune")


def outputs(state_dict: dict[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
    model = EatModel(CONFIG).eval()
    model.load_state_dict(state_dict, strict=True)
    with torch.no_grad():
        return model(features.squeeze(1)).last_hidden_state


@pytest.mark.parametrize("style", STYLES)
def test_every_released_form_gives_upstreams_outputs(eat_weights, golden, style):
    converted = convert_eat_state_dict(eat_weights[style])
    expected = golden[f"out.{style.split('_')[1]}.tokens_1024"]
    torch.testing.assert_close(outputs(converted, golden["in.input_1024"]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [512, 1024, 1200])
def test_other_lengths_give_upstreams_outputs(eat_weights, golden, frames):
    features = golden["in.input_1200"] if frames == 1200 else golden["in.input_1024"][:, :, :frames]
    tokens = outputs(convert_eat_state_dict(eat_weights["original_pretrain"]), features)
    torch.testing.assert_close(tokens, golden[f"out.pretrain.tokens_{frames}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("style", ["original_finetune", "released_finetune"])
def test_head_gives_upstreams_logits(eat_weights, golden, style):
    model = EatForAudioClassification(CONFIG).eval()
    model.load_state_dict(convert_eat_state_dict(eat_weights[style], with_head=True), strict=True)
    with torch.no_grad():
        logits = model(golden["in.input_1024"].squeeze(1)).logits
    torch.testing.assert_close(logits, golden["out.finetune.logits_1024"], rtol=0, atol=1e-5)


def test_what_only_pretraining_needs_is_dropped(eat_weights):
    weights = eat_weights["original_pretrain"]
    extra = {"_ema": {"blocks.0.norm1.weight": torch.zeros(32)}, "center": torch.zeros(1, 1, 32)}
    extra |= {"recon_proj.weight": torch.zeros(10, 32), "cls_proj.bias": torch.zeros(32)}
    prefixed = {f"model.{name}": value for name, value in (weights | extra).items()}
    assert convert_eat_state_dict(prefixed).keys() == convert_eat_state_dict(weights).keys()


def test_missing_and_left_over_weights_are_named(eat_weights):
    weights = eat_weights["original_pretrain"]
    del weights["blocks.0.attn.qkv.bias"]
    weights["modality_encoders.IMAGE.alibi_scale"] = torch.ones(1)
    with pytest.raises(ValueError, match=r"missing: blocks\.0\.attn\.qkv\.bias .*IMAGE\.alibi_scale"):
        convert_eat_state_dict(weights)


def test_two_models_in_one_file_are_refused(eat_weights):
    weights = eat_weights["original_pretrain"]
    teacher = {"model.blocks.0.norm1.weight": weights["blocks.0.norm1.weight"]}
    with pytest.raises(ValueError, match=r"unexpected: model\.blocks\.0\.norm1\.weight"):
        convert_eat_state_dict(weights | teacher)


def test_a_pretrained_model_has_no_head(eat_weights):
    with pytest.raises(ValueError, match=r"missing: fc_norm\.bias .*head\.weight"):
        convert_eat_state_dict(eat_weights["original_pretrain"], with_head=True)


def test_positions_are_checked(eat_weights):
    weights = eat_weights["original_pretrain"]
    early = weights | {POSITIONS: weights[POSITIONS][:, :512]}
    assert convert_eat_state_dict(early).keys() == convert_eat_state_dict(weights).keys()
    for other in (weights[POSITIONS] + 0.01, weights[POSITIONS][0], weights[POSITIONS][..., :16]):
        with pytest.raises(ValueError, match="another model"):
            convert_eat_state_dict(weights | {POSITIONS: other})


def test_config_comes_from_shapes_and_the_released_config(eat_weights):
    weights = convert_eat_state_dict(eat_weights["released_finetune"], with_head=True)
    config = eat_config_from_state_dict(weights, {"model_type": "eat", "num_heads": 2})
    assert config.to_dict() == CONFIG.to_dict()


@pytest.mark.parametrize(("hidden_size", "heads"), [(768, 12), (1024, 16)])
def test_heads_of_base_and_large_are_known(hidden_size, heads):
    weights = {
        "embeddings.cls_token": torch.empty(1, 1, hidden_size),
        "embeddings.patch_embedding.weight": torch.empty(hidden_size, 1, 16, 16),
        "layers.0.mlp.fc1.bias": torch.empty(4 * hidden_size),
    }
    assert eat_config_from_state_dict(weights).num_attention_heads == heads


def test_unknown_architectures_are_refused(eat_weights):
    weights = convert_eat_state_dict(eat_weights["released_pretrain"])
    with pytest.raises(ValueError, match="num_heads"):
        eat_config_from_state_dict(weights)
    with pytest.raises(ValueError, match="post-norm"):
        eat_config_from_state_dict(weights, {"model_type": "eat", "num_heads": 2, "layer_norm_first": True})


def test_a_config_deeper_than_the_weights_is_refused(eat_folder):
    (eat_folder / "config.json").write_text(json.dumps({"model_type": "eat", "depth": 3, "num_heads": 2}))
    config, weights = load_eat(eat_folder)
    with pytest.raises(ValueError, match=r"layers\.2\.norm1\.weight"):
        load_strictly(EatModel, config, weights, "EAT")


def test_loads_fairseq_files(eat_weights, eat_folder):
    (eat_folder / "model.safetensors").unlink()
    checkpoint = {"model": eat_weights["original_finetune"], "cfg": {"model": {"depth": 2}}, "optimizer_history": []}
    torch.save(checkpoint, eat_folder / "checkpoint_last.pt")
    config, weights = load_eat(eat_folder, with_head=True)
    assert load_strictly(EatForAudioClassification, config, weights, "EAT").config.num_labels == 5


@pytest.mark.parametrize("with_head", [False, True])
def test_loads_our_own_folders(golden, eat_folder, tmp_path, with_head):
    config, weights = load_eat(eat_folder, with_head=True)
    model = load_strictly(EatForAudioClassification, config, weights, "EAT")
    model.save_pretrained(tmp_path / "ours")
    config, weights = load_eat(tmp_path / "ours", with_head)
    again = load_strictly(EatForAudioClassification if with_head else EatModel, config, weights, "EAT")
    encoder = again.eat if with_head else again
    for name, tensor in model.eat.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor), name


def test_another_model_is_refused_by_name(tmp_path):
    save_file({"encoder.conv.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"unexpected: encoder\.conv\.weight"):
        load_eat(tmp_path)

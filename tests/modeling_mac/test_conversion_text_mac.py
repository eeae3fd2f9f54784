import json
from pathlib import Path

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Mamba2Config, Mamba2ForCausalLM, PreTrainedModel, ViTConfig

from modeling_mac.conversion_text_mac import (
    first_free_row,
    language_model_config,
    load_language_model,
    state_spaces_config,
)
from modeling_mac.modeling_mamba2_mac import Mamba2MacModel
from modeling_mac.weight_files_mac import load_strictly


RELEASED_130M = {
    "d_model": 768, "d_intermediate": 0, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2"},
    "attn_layer_idx": [], "attn_cfg": {}, "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True,
    "pad_vocab_size_multiple": 16, "tie_embeddings": True,
}  # fmt: skip
IDS = torch.arange(40).unsqueeze(0)


def logits(folder: Path) -> torch.Tensor:
    """What MAC's language model and head compute from the converted weights."""
    config, _ = language_model_config(folder)
    weights, tied = load_language_model(folder, config)
    prefix = "model.language_model."
    encoder = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    model = load_strictly(Mamba2MacModel, config, encoder, "the language model")
    head = model.get_input_embeddings().weight if tied else weights["lm_head.weight"]
    with torch.no_grad():
        return model(IDS).last_hidden_state @ head.T


def expected_logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def change_config(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_released_config():
    config = state_spaces_config(RELEASED_130M)
    assert (config.hidden_size, config.num_hidden_layers, config.num_heads, config.head_dim) == (768, 24, 24, 64)
    assert (config.state_size, config.n_groups, config.conv_kernel, config.chunk_size) == (128, 1, 4, 256)
    assert config.vocab_size == 50288 and config.tie_word_embeddings and config.layer_norm_epsilon == 1e-5
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 0, 0)
    assert first_free_row(config, 50277) == 50277


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"ssm_cfg": {"layer": "S4"}}, "S4; expected Mamba1 or Mamba2"),
        ({"rms_norm": False}, "rms_norm = false"),
        ({"ssm_cfg": {"layer": "Mamba2", "norm_before_gate": True}}, "norm_before_gate"),
        ({"attn_layer_idx": [9, 18]}, "attn_layer_idx"),
        ({"d_intermediate": 2048}, "d_intermediate"),
    ],
)
def test_what_is_no_plain_mamba2_is_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        state_spaces_config(RELEASED_130M | fields)


def test_an_incomplete_config_is_refused():
    with pytest.raises(ValueError, match="lacks d_model, n_layer"):
        state_spaces_config({"ssm_cfg": {"layer": "Mamba2"}, "vocab_size": 50277})


def test_state_spaces_form(mamba2, mamba2_folder):
    torch.testing.assert_close(logits(mamba2_folder), expected_logits(mamba2), rtol=0, atol=1e-5)
    config, num_tokens = language_model_config(mamba2_folder)
    assert first_free_row(config, num_tokens) == 50


def test_state_spaces_form_given_as_its_file(mamba2, mamba2_folder):
    file = mamba2_folder / "pytorch_model.bin"
    torch.testing.assert_close(logits(file), expected_logits(mamba2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("max_shard_size", ["1GB", "10KB"])
def test_transformers_form(mamba2, tmp_path, max_shard_size):
    mamba2.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    torch.testing.assert_close(logits(tmp_path), expected_logits(mamba2), rtol=0, atol=1e-5)


def test_half_precision_becomes_float32(mamba2, tmp_path):
    mamba2.half().save_pretrained(tmp_path)
    config, _ = language_model_config(tmp_path)
    weights, _ = load_language_model(tmp_path, config)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_untied_transformer(tmp_path):
    config = GPTNeoXConfig(
        vocab_size=50304, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    model = GPTNeoXForCausalLM(config)
    model.save_pretrained(tmp_path)
    config, num_tokens = language_model_config(tmp_path)
    weights, tied = load_language_model(tmp_path, config)
    assert not tied and torch.equal(weights["lm_head.weight"], model.get_output_embeddings().weight)
    assert torch.equal(weights["model.language_model.embed_in.weight"], model.get_input_embeddings().weight)
    assert first_free_row(config, num_tokens) == 50277


def test_missing_left_over_and_misshapen_weights_are_named(mamba2_folder):
    file = mamba2_folder / "pytorch_model.bin"
    weights = torch.load(file)
    del weights["backbone.layers.1.mixer.A_log"]
    weights["backbone.layers.1.mlp.fc1.weight"] = torch.zeros(1)
    weights["backbone.layers.0.mixer.D"] = torch.zeros(9)
    torch.save(weights, file)
    config, _ = language_model_config(mamba2_folder)
    with pytest.raises(ValueError) as error:
        load_language_model(mamba2_folder, config)
    assert "missing: backbone.layers.1.mixer.A_log" in str(error.value)
    assert "unexpected: backbone.layers.1.mlp.fc1.weight" in str(error.value)
    assert "backbone.layers.0.mixer.D is (9,) instead of (8,)" in str(error.value)


def test_a_missing_embedding_is_not_made_up(mamba2_folder):
    file = mamba2_folder / "pytorch_model.bin"
    weights = {name: weight for name, weight in torch.load(file).items() if "layers" in name or "norm_f" in name}
    torch.save(weights, file)
    config, _ = language_model_config(mamba2_folder)
    with pytest.raises(ValueError, match=r"missing: backbone\.embeddings\.weight"):
        load_language_model(mamba2_folder, config)


def test_a_tied_head_may_be_absent_but_not_differ(mamba2, mamba2_folder):
    file = mamba2_folder / "pytorch_model.bin"
    weights = torch.load(file)
    torch.save({name: weight for name, weight in weights.items() if name != "lm_head.weight"}, file)
    torch.testing.assert_close(logits(mamba2_folder), expected_logits(mamba2), rtol=0, atol=1e-5)
    torch.save(weights | {"lm_head.weight": weights["lm_head.weight"] + 1}, file)
    config, _ = language_model_config(mamba2_folder)
    with pytest.raises(ValueError, match="differs from the embedding"):
        load_language_model(mamba2_folder, config)


def test_an_untied_head_is_kept(mamba2_folder):
    change_config(mamba2_folder, tie_embeddings=False)
    config, _ = language_model_config(mamba2_folder)
    weights, tied = load_language_model(mamba2_folder, config)
    assert not tied and "lm_head.weight" in weights


@pytest.mark.parametrize("vocab_size", [64, 128256])
def test_the_audio_token_needs_a_row_known_to_be_free(mamba2, tmp_path, vocab_size):
    Mamba2Config(**(mamba2.config.to_dict() | {"vocab_size": vocab_size})).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="audio_token_id"):
        first_free_row(*language_model_config(tmp_path))


def test_folders_that_are_no_language_model(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        language_model_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Something"]}))
    with pytest.raises(ValueError, match="neither `model_type`"):
        language_model_config(tmp_path)
    with pytest.raises(ValueError, match="'vit' model"):
        load_language_model(tmp_path, ViTConfig())


def test_the_released_form_is_never_read_by_transformers_defaults(mamba2_folder):
    change_config(mamba2_folder, model_type="mamba2")
    config, _ = language_model_config(mamba2_folder)
    assert config.hidden_size == 32
    assert isinstance(config, Mamba2ForCausalLM.config_class)

"""What goes into a folder comes out of it: weights, ties, dtypes, adapters, and the class that Auto finds."""

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM

from modeling_mac import EatModel, MacConfig, MacForConditionalGeneration, MacModel


language_models = pytest.mark.parametrize("model_type", ["mamba2", "mamba", "bamba", "gpt_neox"])
ties = pytest.mark.parametrize("tied", [False, True])


def head_is_tied(model: MacForConditionalGeneration) -> bool:
    return model.lm_head.weight is model.get_input_embeddings().weight


def assert_same_weights(actual: torch.nn.Module, expected: torch.nn.Module) -> None:
    expected_state = expected.state_dict()
    assert list(actual.state_dict()) == list(expected_state)
    for name, weight in actual.state_dict().items():
        assert weight.dtype == expected_state[name].dtype, name
        assert torch.equal(weight, expected_state[name]), name


@ties
@language_models
@torch.no_grad()
def test_round_trip_in_float32(make_mac, make_inputs, model_type, tied, tmp_path):
    model, inputs = make_mac(model_type, tie_word_embeddings=tied), make_inputs(1, 3)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    assert type(loaded) is MacForConditionalGeneration
    assert_same_weights(loaded, model)
    assert head_is_tied(loaded) == head_is_tied(model) == tied
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert torch.equal(loaded.generate(**inputs, do_sample=False), model.generate(**inputs, do_sample=False))


@language_models
@torch.no_grad()
def test_round_trip_in_bfloat16(make_mac, make_inputs, model_type, tmp_path):
    inputs = make_inputs(1, 3)
    make_mac(model_type).save_pretrained(tmp_path / "float32")
    model = MacForConditionalGeneration.from_pretrained(tmp_path / "float32", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "bfloat16")
    loaded = MacForConditionalGeneration.from_pretrained(tmp_path / "bfloat16")
    assert loaded.dtype == torch.bfloat16
    assert_same_weights(loaded, model)
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


@torch.no_grad()
def test_bfloat16_is_close_and_leaves_the_recurrence_in_float32(make_mac, make_inputs, tmp_path):
    model, inputs = make_mac(initializer_range=0.02), make_inputs(1, 3)
    model.save_pretrained(tmp_path)
    loaded = MacForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    in_float32 = {
        name.rpartition(".")[2] for name, weight in loaded.named_parameters() if weight.dtype == torch.float32
    }
    assert in_float32 == {"A_log", "dt_bias"}
    expected = model(**inputs).logits[inputs["attention_mask"].bool()]
    actual = loaded(**inputs).logits[inputs["attention_mask"].bool()]
    assert (actual.float() - expected).abs().max() < 0.1 * expected.abs().max()


@ties
def test_the_file_holds_a_tied_head_once(make_mac, tied, tmp_path):
    make_mac(tie_word_embeddings=tied).save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "model.language_model.embeddings.weight" in names
    assert ("lm_head.weight" in names) == (not tied)
    assert not any("positions" in name for name in names)


@language_models
def test_tied_gradients_meet_in_one_matrix(make_mac, make_inputs, model_type):
    model, inputs = make_mac(model_type, tie_word_embeddings=True), make_inputs(1)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert model.get_input_embeddings().weight.grad is model.lm_head.weight.grad
    assert "lm_head.weight" not in dict(model.named_parameters())


@torch.no_grad()
def test_base_model_loads_from_the_whole(mac, make_inputs, tmp_path):
    mac.save_pretrained(tmp_path)
    inputs = make_inputs(1)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is MacModel
    assert torch.equal(base(**inputs).last_hidden_state, mac.model(**inputs).last_hidden_state)


def test_auto_classes_know_the_models(mac):
    assert type(AutoConfig.for_model("mac")) is MacConfig
    assert type(AutoModel.from_config(mac.config)) is MacModel
    assert type(AutoModel.from_config(mac.config.audio_config)) is EatModel
    assert type(AutoModelForMultimodalLM.from_config(mac.config)) is MacForConditionalGeneration


@language_models
def test_new_weights_come_from_each_towers_own_rules(make_mac, model_type):
    """A model made from its config alone holds no uninitialised memory."""
    model = make_mac(model_type, initializer_range=0.02)
    linear = model.model.connector.linear_1
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not linear.bias.any()
    assert model.model.language_model.get_input_embeddings().weight.std().item() == pytest.approx(0.3, rel=0.3)
    qkv = model.model.audio_tower.layers[0].attention.qkv.weight
    assert qkv.std().item() == pytest.approx((2 / (32 + 96)) ** 0.5, rel=0.1)


@ties
@torch.no_grad()
def test_the_vocabulary_grows(make_mac, make_inputs, tied, tmp_path):
    model, inputs = make_mac(tie_word_embeddings=tied), make_inputs(1)
    before = model(**inputs).logits
    model.resize_token_embeddings(70)
    assert model.config.text_config.vocab_size == 70
    assert model.lm_head.weight.shape == model.get_input_embeddings().weight.shape == (70, 32)
    assert head_is_tied(model) == tied and type(model.lm_head) is nn.Linear
    torch.testing.assert_close(model(**inputs).logits[..., :64], before)
    model.save_pretrained(tmp_path)
    assert torch.equal(MacForConditionalGeneration.from_pretrained(tmp_path)(**inputs).logits, model(**inputs).logits)


def test_lora_and_connector_round_trip(make_mac, make_inputs, tmp_path):
    """The paper's set-up: LoRA on the language model's projections, the connector trained whole."""
    inputs = make_inputs(1, 3)
    lora = peft.LoraConfig(
        r=4, target_modules=r".*language_model.*\.(in_proj|out_proj)", modules_to_save=["connector"]
    )
    adapted = peft.get_peft_model(make_mac(), lora)
    adapted.train()
    optimizer = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=0.1)
    for _ in range(2):
        adapted(**inputs, labels=inputs["input_ids"]).loss.backward()
        trained = {
            name for name, weight in adapted.named_parameters() if weight.grad is not None and weight.grad.any()
        }
        optimizer.step()
    assert trained == {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    for part, count in (("in_proj.lora_A", 2), ("out_proj.lora_B", 2), ("audio_tower", 0)):
        assert sum(part in name for name in trained) == count, part
    assert any("connector.modules_to_save" in name for name in trained)
    adapted.eval()
    with torch.no_grad():
        expected = adapted(**inputs).logits
        assert not torch.allclose(expected, make_mac()(**inputs).logits)
        adapted.save_pretrained(tmp_path)
        loaded = peft.PeftModel.from_pretrained(make_mac(), tmp_path).eval()
        assert torch.equal(loaded(**inputs).logits, expected)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, expected, rtol=1e-4, atol=1e-3)

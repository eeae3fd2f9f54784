"""MAC's forward pass: its language model, where the audio goes, what it refuses, its loss and gradients."""

import copy

import accelerate
import pytest
import torch
from transformers import AutoModelForCausalLM, Mamba2Model

from modeling_mac import MacForConditionalGeneration, ssd_mac
from modeling_mac.connector_mac import CONNECTORS
from modeling_mac.modeling_mac import MacModelOutput
from modeling_mac.modeling_mamba2_mac import Mamba2MacModel


language_models = pytest.mark.parametrize("model_type", ["mamba2", "mamba", "bamba", "gpt_neox"])


@language_models
@torch.no_grad()
def test_text_alone_gives_the_language_models_own_logits(make_mac, model_type):
    model = make_mac(model_type)
    torch.manual_seed(1)
    own = AutoModelForCausalLM.from_config(copy.deepcopy(model.config.text_config), attn_implementation="eager").eval()
    model.model.language_model.load_state_dict(own.base_model.state_dict())
    model.lm_head.load_state_dict(own.get_output_embeddings().state_dict())
    ids = torch.randint(1, 60, (2, 70))
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    arguments = {"attention_mask": mask} | ({} if model_type.startswith("mamba") else {"position_ids": positions})
    expected = own(ids, **arguments).logits
    torch.testing.assert_close(model(ids, **arguments).logits[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-4)


def test_mamba2_gets_our_scan(mac):
    assert type(mac.model.language_model) is Mamba2MacModel
    assert isinstance(mac.model.language_model, Mamba2Model)


@pytest.mark.parametrize("connector_type", list(CONNECTORS))
@torch.no_grad()
def test_audio_embeddings_stand_where_the_placeholders_are(make_mac, make_inputs, connector_type):
    model = make_mac(connector_type=connector_type)
    tokens = model.config.audio_tokens_per_window
    inputs = make_inputs(1, 2, tokens=tokens)
    features = model.get_audio_features(inputs["input_features"])
    assert features.last_hidden_state.shape == (3, 65, 32)
    assert features.pooler_output.shape == (3, tokens, 32)
    without_cls = features.last_hidden_state[:, 1:]
    assert torch.equal(features.pooler_output, model.model.connector(without_cls))
    text = model.get_input_embeddings()(inputs["input_ids"])
    embeds = model.model.insert_audio(inputs["input_ids"], text, features.pooler_output)
    is_audio = inputs["input_ids"] == model.config.audio_token_id
    assert torch.equal(embeds[~is_audio], text[~is_audio])
    assert torch.equal(embeds[0, is_audio[0]], features.pooler_output[0])
    assert torch.equal(embeds[1, is_audio[1]], features.pooler_output[1:].flatten(0, 1))
    outputs = model(**inputs)
    expected = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"])
    assert torch.equal(outputs.logits, expected.logits)
    assert torch.equal(outputs.audio_hidden_states, features.pooler_output)
    assert outputs.audio_hidden_states.ndim == 3
    assert "Output of the connector, (windows, audio tokens per window, width)" in (MacModelOutput.__doc__ or "")


def test_a_wrong_count_of_audio_tokens_names_both_numbers(mac, make_inputs):
    inputs = make_inputs(2)
    inputs["input_ids"] = inputs["input_ids"][:, 1:]
    inputs["attention_mask"] = inputs["attention_mask"][:, 1:]
    with pytest.raises(ValueError, match="holds 15 audio tokens, but 2 audio windows need 16"):
        mac(**inputs)


def test_audio_of_another_width_than_the_text_is_refused(mac, make_inputs):
    inputs = make_inputs(1)
    features = mac.get_audio_features(inputs["input_features"]).pooler_output
    narrow = mac.get_input_embeddings()(inputs["input_ids"])[..., :16]
    with pytest.raises(ValueError, match="Audio embeddings are 32 wide, those of the text 16"):
        mac.model.insert_audio(inputs["input_ids"], narrow, features)


def test_a_wrong_count_of_windows_names_both_numbers(mac, make_inputs):
    with pytest.raises(ValueError, match="adds up to 3, but `input_features` holds 2 windows"):
        mac(**make_inputs(2) | {"audio_num_windows": torch.tensor([3])})


def test_audio_needs_text_and_text_needs_its_audio(mac, make_inputs):
    inputs = make_inputs(1)
    features = inputs["input_features"]
    with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
        mac(input_features=features)
    embeds = mac.get_input_embeddings()(inputs["input_ids"])
    with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
        mac(inputs["input_ids"], inputs_embeds=embeds)
    with pytest.raises(ValueError, match="holds 0 audio tokens, but 1 audio windows need 8"):
        mac(inputs_embeds=embeds + 1, input_features=features)


@torch.no_grad()
def test_placeholders_may_come_as_embeddings(mac, make_inputs):
    """As prompt tuning hands them over."""
    inputs = make_inputs(1, 3)
    expected = mac(**inputs).logits
    inputs["inputs_embeds"] = mac.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.equal(mac(**inputs).logits, expected)


@torch.no_grad()
def test_audio_features_bring_the_encoders_states(mac, make_inputs):
    features = make_inputs(1, 2)["input_features"]
    mac.set_attn_implementation({"audio_config": "eager"})
    outputs = mac.get_audio_features(features, output_hidden_states=True, output_attentions=True)
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    assert [weights.shape for weights in outputs.attentions] == [(3, 2, 65, 65)] * 2


def test_many_windows_are_encoded_in_pieces(mac, make_inputs):
    features = make_inputs(70)["input_features"]
    whole = mac.get_audio_features(features)
    encoded = []
    mac.model.audio_tower.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
    with torch.no_grad():
        pieces = mac.get_audio_features(features)
    assert encoded == [32, 32, 6]
    torch.testing.assert_close(pieces.pooler_output, whole.pooler_output)
    torch.testing.assert_close(pieces.last_hidden_state, whole.last_hidden_state)


@torch.no_grad()
def test_the_encoders_output_may_be_given_instead_of_audio(mac, make_inputs):
    inputs = make_inputs(1, 2)
    expected = mac(**inputs).logits
    encoded = mac.model.audio_tower(inputs.pop("input_features")).last_hidden_state
    torch.testing.assert_close(mac(**inputs, encoder_hidden_states=encoded).logits, expected)
    with pytest.raises(ValueError, match="adds up to 3"):
        mac(**inputs, encoder_hidden_states=encoded[:2])


def test_text_with_placeholders_but_no_audio_is_refused(mac, make_inputs):
    with pytest.raises(ValueError, match="8 audio tokens"):
        mac(make_inputs(1)["input_ids"])


@language_models
@torch.no_grad()
def test_outputs(make_mac, make_inputs, model_type):
    model, inputs = make_mac(model_type), make_inputs(1, 2)
    outputs = model(**inputs, output_hidden_states=True)
    assert len(outputs.hidden_states) == 3
    assert outputs.cache is not None
    as_tuple = model(**inputs, return_dict=False)
    assert torch.equal(as_tuple[0], outputs.logits)
    assert torch.equal(model(**inputs, logits_to_keep=2).logits, outputs.logits[:, -2:])
    assert torch.equal(model.model(**inputs).last_hidden_state, outputs.hidden_states[-1])


def labels_for(inputs: dict[str, torch.Tensor], answer: int = 3) -> torch.Tensor:
    """The last tokens are the answer; the second clip's is a token shorter."""
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -answer:] = inputs["input_ids"][:, -answer:]
    labels[1, -answer] = -100
    return labels


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@language_models
def test_loss_in_training_equals_that_of_all_logits(make_mac, make_inputs, model_type):
    model, inputs = make_mac(model_type), make_inputs(1, 3)
    labels = labels_for(inputs)
    whole = model(**inputs, labels=labels)
    logits = model(**inputs).logits
    assert torch.equal(whole.logits, logits)
    by_hand = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(whole.loss, by_hand)
    expected = gradients(model, whole.loss)

    outputs = model.train()(**inputs, labels=labels)
    assert outputs.logits.shape == (5, 64)
    torch.testing.assert_close(outputs.loss, whole.loss)
    for name, gradient in gradients(model, outputs.loss).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6 + 1e-5 * gradient.abs().max().item())


@pytest.mark.parametrize("training", [False, True])
def test_loss_over_a_global_batch(mac, make_inputs, training):
    """With gradient accumulation the Trainer says how many labels the whole batch holds."""
    inputs = make_inputs(1, 3)
    labels = labels_for(inputs)
    mac.train(training)
    mean = mac(**inputs, labels=labels).loss
    torch.testing.assert_close(mac(**inputs, labels=labels, num_items_in_batch=torch.tensor(12)).loss, mean * 5 / 12)


@pytest.mark.parametrize("training", [False, True])
def test_labels_may_come_shifted(mac, make_inputs, training):
    inputs = make_inputs(1, 3)
    labels = labels_for(inputs)
    mac.train(training)
    expected = mac(**inputs, labels=labels).loss
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(mac(**inputs, shift_labels=shifted).loss, expected)


def test_a_label_on_the_first_token_is_not_predicted(mac, make_inputs):
    inputs = make_inputs(1, 1)
    labels = labels_for(inputs)
    expected = mac.train()(**inputs, labels=labels).loss
    labels[:, 0] = 5
    torch.testing.assert_close(mac(**inputs, labels=labels).loss, expected)


@language_models
def test_gradient_checkpointing_gives_the_same_gradients(make_mac, make_inputs, model_type):
    model, inputs = make_mac(model_type).train(), make_inputs(1, 3)
    labels = labels_for(inputs)
    expected = gradients(model, model(**inputs, labels=labels).loss)
    model.gradient_checkpointing_enable()
    assert model.model.audio_tower.is_gradient_checkpointing
    assert model.model.language_model.is_gradient_checkpointing
    for name, gradient in gradients(model, model(**inputs, labels=labels).loss).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_training_under_autocast(mac, make_inputs, monkeypatch):
    monkeypatch.setattr(ssd_mac, "CPU_CHUNK", 16)  # states pass from chunk to chunk
    inputs = make_inputs(1, 3)
    labels = labels_for(inputs)
    exact = mac.train()(**inputs, labels=labels).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = mac(**inputs, labels=labels).loss
    assert loss.item() == pytest.approx(exact.item(), rel=0.1)
    assert all(gradient.isfinite().all() for gradient in gradients(mac, loss).values())


@language_models
@torch.no_grad()
def test_layers_on_disk_give_the_same_logits(make_mac, make_inputs, model_type, tmp_path):
    """Weights that a layer uses without calling its module must be fetched too."""
    model, inputs = make_mac(model_type), make_inputs(1, 2)
    expected = model(**inputs).logits
    tokens = model.generate(**inputs, do_sample=False)
    children = [f"model.{name}" for name, _ in model.model.named_children()] + ["lm_head"]
    accelerate.dispatch_model(
        model, dict.fromkeys(children, "disk"), main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
    )
    assert model.lm_head.weight.device.type == "meta"
    assert all(parameter.device.type == "meta" for parameter in model.model.language_model.parameters())
    torch.testing.assert_close(model(**inputs).logits, expected)
    assert torch.equal(model.generate(**inputs, do_sample=False), tokens)


@language_models
@torch.no_grad()
def test_device_map_auto(make_mac, make_inputs, model_type, tmp_path):
    model, inputs = make_mac(model_type), make_inputs(1, 2)
    model.save_pretrained(tmp_path)
    loaded = MacForConditionalGeneration.from_pretrained(tmp_path, device_map="auto")
    torch.testing.assert_close(loaded(**inputs).logits.cpu(), model(**inputs).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_device_map_may_cut_between_layers(mac, make_inputs, tmp_path):
    """As `device_map="auto"` does where memory is short: some layers stay, the others are on disk."""
    expected = mac(**make_inputs(1, 2)).logits
    mac.save_pretrained(tmp_path / "model")
    names = [name for name, _ in mac.model.named_children() if name != "language_model"]
    device_map = {f"model.{name}": "cpu" for name in names} | {
        "model.language_model.embeddings": "cpu",
        "model.language_model.layers.0": "cpu",
        "model.language_model.layers.1": "disk",
        "model.language_model.norm_f": "cpu",
        "lm_head": "disk",
    }
    loaded = MacForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert next(loaded.model.language_model.layers[1].parameters()).device.type == "meta"
    torch.testing.assert_close(loaded(**make_inputs(1, 2)).logits, expected)


@torch.no_grad()
def test_export(mac, make_inputs):
    inputs = make_inputs(1, 3)
    expected = mac(**inputs, use_cache=False).logits
    program = torch.export.export(mac, (), inputs | {"use_cache": False}, strict=False)
    torch.testing.assert_close(program.module()(**inputs, use_cache=False).logits, expected)

"""Every kind of language model under MAC: it computes what its own causal model does, and its cache loses nothing."""

import copy
import math

import peft
import pytest
import torch
from text_configs import TEXT_CONFIGS, text_config
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from modeling_mac import MacConfig, MacForConditionalGeneration, MacModel
from modeling_mac.language_model_mac import REFUSED, TESTED


every_kind = pytest.mark.parametrize("model_type", sorted(TESTED))
SEARCHES = {"greedy": {"num_beams": 1}, "beams": {"num_beams": 4, "num_return_sequences": 2}}
searches = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
# Variants of kinds that are right otherwise, and what their refusal says.
FAULTY = {
    "opt": ({"word_embed_proj_dim": 16}, "embeddings are 16 wide .* layers 32"),  # as facebook/opt-350m
    "llama": ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'.* another caption in a batch"),
    "phi3": ({"rope_parameters": LONGROPE, "original_max_position_embeddings": 20}, "'longrope'.* another caption"),
    "gemma3_text": (
        {"rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0}}}, "'dynamic'",
    ),
    "mac_discrete_mamba2": ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
    "lfm2": ({"layer_types": ["conv", "conv"]}, "none of its layers has attention"),
    "bamba": ({"attn_layer_indices": []}, "none of its layers has attention"),
    "jamba": ({"attn_layer_period": 5, "attn_layer_offset": 4}, "none of its layers has attention"),
    "qwen3_next": ({"layer_types": ["linear_attention", "linear_attention"]}, "none of its layers has attention"),
    "granitemoehybrid": ({"layer_types": None}, "none of its layers has attention"),
    "falcon_h1": ({"time_step_limit": (0.01, 0.2)}, r"step sizes are limited to \(0.01, 0.2\)"),
}  # fmt: skip


@pytest.fixture
def model(make_mac, model_type) -> MacForConditionalGeneration:
    return make_mac(model_type)


def generate(model, inputs, **kwargs):
    """The new tokens."""
    return model.generate(**inputs, do_sample=False, **kwargs)[:, inputs["input_ids"].shape[1] :]


def causal_model(model_type: str, **fields) -> PreTrainedModel:
    """The language model's own causal model, with random weights."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(text_config(model_type, **fields)).eval()
    if (bias := model.get_output_embeddings().bias) is not None:
        nn.init.normal_(bias)
    for module in model.modules():
        if hasattr(module, "time_step_limit"):  # Zamba2 and Nemotron-H as published, without transformers' own limit
            module.time_step_limit = (0.0, math.inf)
    return model


# A discrete Mamba-2 has no causal LM in transformers; its logits have golden files in a test of their own.
@pytest.mark.parametrize("model_type", sorted(set(TESTED) - {"mac_discrete_mamba2"}))
@torch.no_grad()
def test_logits_and_towers(model_type, eat_folder, tmp_path):
    """Those of the causal model, whose folder `from_towers` reads; a batch padded on the left too."""
    own = causal_model(model_type)
    own.save_pretrained(tmp_path)
    model = MacForConditionalGeneration.from_towers(eat_folder, tmp_path, audio_token_id=63)
    ids = torch.randint(1, 60, (2, 40))
    torch.testing.assert_close(model(ids).logits, own(ids).logits, rtol=0, atol=2e-5)
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    padded = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(padded[0, 9:], own(ids[:1, 9:]).logits[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(padded[1], own(ids[1:]).logits[0], rtol=0, atol=1e-4)


@searches
@every_kind
def test_a_cache_changes_nothing(model, make_inputs, search):
    inputs = make_inputs(1, 3)
    cached = generate(model, inputs, use_cache=True, **search)
    assert torch.equal(cached, generate(model, inputs, use_cache=False, **search))
    assert len(set(map(tuple, cached.tolist()))) > len(cached) // 2, "the captions must differ for this to tell"


@searches
@every_kind
def test_a_batch_gives_what_each_clip_gives_alone(model, make_inputs, take_clip, search):
    inputs = make_inputs(1, 3)
    together = generate(model, inputs, **search).chunk(2)
    for clip in range(2):
        assert torch.equal(together[clip], generate(model, take_clip(inputs, clip), **search))


@every_kind
@torch.no_grad()
def test_texts_read_on_from_one_kept_state(model, make_inputs):
    """Several tokens at once for several rows, as prompts and likelihoods need it."""
    audio, texts = make_inputs(2, prompt=(5, 6)), torch.tensor([[5, 6, 7, 8], [9, 3, 10, 4], [11, 12, 13, 14]])
    cache = model(**audio, use_cache=True).cache
    fork = copy.deepcopy(cache)
    fork.reorder_cache(torch.zeros(3, dtype=torch.long))
    logits = model(texts, cache=fork, use_cache=True).logits
    again = copy.deepcopy(cache)
    again.reorder_cache(torch.zeros(3, dtype=torch.long))
    mask = torch.ones(3, audio["input_ids"].shape[1] + 4, dtype=torch.long)
    masked = model(texts, cache=again, attention_mask=mask, use_cache=True).logits
    for row, text in enumerate(texts):
        expected = model(**make_inputs(2, prompt=(5, 6, *text.tolist()))).logits[0, -4:]
        for actual in (logits[row], masked[row]):
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)


@every_kind
@torch.no_grad()
def test_tokens_read_one_by_one(model, make_inputs):
    """As a caption is written: with the logits of a text that is read at once."""
    prompt = (5, 6, 7, 8, 9, 3, 10, 4)
    expected = model(**make_inputs(2, prompt=prompt)).logits[0, -len(prompt) :]
    cache = model(**make_inputs(2, prompt=()), use_cache=True).cache
    logits = [model(torch.tensor([[token]]), cache=cache, use_cache=True).logits[0, 0] for token in prompt]
    torch.testing.assert_close(torch.stack(logits), expected, rtol=0, atol=1e-3)


@every_kind
def test_answers_to_prompts_on_one_kept_state(model, make_inputs):
    prompts = torch.tensor([[5, 6, 7], [8, 9, 10]])
    audio = make_inputs(2, prompt=())
    with torch.no_grad():
        cache = model(**audio, use_cache=True).cache
    cache.reorder_cache(torch.zeros(2, dtype=torch.long))
    mask = torch.ones(2, audio["input_ids"].shape[1] + 3, dtype=torch.long)
    answers = generate(model, {"input_ids": prompts}, cache=cache, attention_mask=mask)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert torch.equal(answer, generate(model, make_inputs(2, prompt=tuple(prompt.tolist())))[0])


def assert_same(actual, expected, inputs) -> None:
    """Bit-equal weights and buffers, those that no file holds too. Where they lie in memory may round a product."""
    for parts in ("state_dict", "named_buffers"):
        ours, theirs = (dict(getattr(model, parts)()) for model in (actual, expected))
        assert list(ours) == list(theirs)
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    torch.testing.assert_close(actual(**inputs).logits, expected(**inputs).logits, rtol=1e-5, atol=1e-4)


@every_kind
@torch.no_grad()
def test_saved_and_loaded(model, make_inputs, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = MacForConditionalGeneration.from_pretrained(tmp_path)
    assert_same(loaded, model, make_inputs(1, 3))


@every_kind
def test_lora_learns(model, model_type, make_inputs):
    """In every linear layer that it may stand in."""
    language_model = model.model.language_model
    refused = TESTED[model_type].no_lora
    names = [
        f"language_model.{name}"
        for name, module in language_model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and not any(part in name for part in refused)
    ]
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=names), model.model)
    inputs = make_inputs(1, 3)
    model.train()(**inputs, labels=inputs["input_ids"]).loss.backward()
    silent = [
        name
        for name, parameter in language_model.named_parameters()
        if "lora_B" in name and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == []


@every_kind
@torch.no_grad()
def test_tied_heads(model_type, make_mac, make_inputs, tmp_path):
    model, inputs = make_mac(model_type, tie_word_embeddings=True), make_inputs(1)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    loaded = MacForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert_same(loaded, model, inputs)


def test_every_kind_has_its_tiny_configuration():
    assert set(TEXT_CONFIGS) == set(TESTED)


@pytest.mark.parametrize("model_type", ["recurrent_gemma", "rwkv"])
def test_other_kinds_are_refused_by_name(model_type, eat_folder, tmp_path):
    config = AutoConfig.for_model(model_type, vocab_size=64, hidden_size=32, num_hidden_layers=1)
    with pytest.raises(ValueError, match=f"'{model_type}' model: .*{REFUSED.get(model_type, 'not been tested')}"):
        MacModel(MacConfig(text_config=config, audio_token_id=1))
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"'{model_type}' model"):
        MacForConditionalGeneration.from_towers(eat_folder, tmp_path, audio_token_id=1)


@pytest.mark.parametrize("model_type", FAULTY)
def test_variants_that_would_be_wrong_are_refused(model_type, eat_folder, tmp_path):
    fields, reason = FAULTY[model_type]
    config = text_config(model_type, **fields)
    with pytest.raises(ValueError, match=f"'{model_type}' model that MAC cannot run: .*{reason}"):
        MacModel(MacConfig(text_config=config, audio_token_id=1))
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"'{model_type}' model that MAC cannot run"):
        MacForConditionalGeneration.from_towers(eat_folder, tmp_path, audio_token_id=1)


@pytest.mark.parametrize("model_type", ["mamba2", "mamba", "jamba", "lfm2"])
@torch.no_grad()
def test_padding_after_a_kept_state_is_refused(model, make_inputs):
    cache = model(**make_inputs(1), use_cache=True).cache
    mask = torch.ones(1, 14, dtype=torch.long)
    mask[0, 11] = 0
    with pytest.raises(ValueError, match="texts of one length"):
        model(torch.tensor([[0, 5, 6]]), cache=cache, attention_mask=mask)


@pytest.mark.parametrize("model_type", ["jamba", "llama", "bamba"])
def test_packed_sequences_are_refused_where_they_would_be_joined(model, make_inputs):
    inputs = make_inputs(1)
    with pytest.raises(ValueError, match=r"`seq_idx` came, but a .* would read packed sequences as one"):
        model(**inputs, seq_idx=torch.zeros_like(inputs["input_ids"]))


@pytest.mark.parametrize("model_type", ["jamba"])
@torch.no_grad()
def test_hidden_states_of_tokens_read_one_by_one(model, make_inputs):
    cache, ids = model(**make_inputs(1), use_cache=True).cache, torch.tensor([[8, 9, 10]])
    expected = model(**make_inputs(1, prompt=(5, 6, 7, 8, 9, 10)), output_hidden_states=True)
    actual = model(ids, cache=copy.deepcopy(cache), output_hidden_states=True)
    for layer, whole in zip(actual.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(layer, whole[:, -3:], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="token by token"):
        model(ids, cache=cache, output_attentions=True)


@pytest.mark.parametrize("model_type", ["mamba2"])
def test_our_classes_are_initialised_as_transformers_own(model):
    for module in (model, model.model.audio_tower, model.model.language_model):
        assert not module.is_custom_code()

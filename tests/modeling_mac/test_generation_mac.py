"""Captions: with a cache and without, in a batch and alone, from every kind of language model."""

import copy
import shutil
import threading

import pytest
import torch
from torch._inductor import config as inductor_config
from transformers import CompileConfig, TextIteratorStreamer

from modeling_mac import MacForConditionalGeneration
from modeling_mac.generation_mac import repeat_clips


LANGUAGE_MODELS = ["mamba2", "mamba", "bamba", "gpt_neox"]
SEARCHES = {"greedy": {"num_beams": 1}, "beams": {"num_beams": 4, "num_return_sequences": 2}}

language_models = pytest.mark.parametrize("model_type", LANGUAGE_MODELS)
searches = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


def generate(model, inputs, **kwargs):
    """The new tokens."""
    kwargs = {"do_sample": False} | kwargs
    return model.generate(**inputs, **kwargs)[:, inputs["input_ids"].shape[1] :]


@searches
@language_models
def test_a_cache_changes_nothing(make_mac, make_inputs, model_type, search):
    model, inputs = make_mac(model_type), make_inputs(1, 3)
    cached = generate(model, inputs, use_cache=True, **search)
    assert torch.equal(cached, generate(model, inputs, use_cache=False, **search))
    assert cached.shape == (2 * search.get("num_return_sequences", 1), 8)
    assert len(set(map(tuple, cached.tolist()))) == len(cached), "the captions must differ for this to tell"


@searches
@language_models
def test_a_batch_gives_what_each_clip_gives_alone(make_mac, make_inputs, take_clip, model_type, search):
    model, inputs = make_mac(model_type), make_inputs(1, 3, 2)
    together = generate(model, inputs, **search).chunk(3)
    for clip in range(3):
        assert torch.equal(together[clip], generate(model, take_clip(inputs, clip), **search))


@language_models
def test_logits_of_a_batch_are_those_of_each_clip_alone(make_mac, make_inputs, take_clip, model_type):
    model, inputs = make_mac(model_type), make_inputs(1, 3)
    options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    together = torch.stack(model.generate(**inputs, **options).logits, dim=1)
    for clip in range(2):
        alone = torch.stack(model.generate(**take_clip(inputs, clip), **options).logits, dim=1)
        torch.testing.assert_close(together[clip : clip + 1], alone, rtol=0, atol=1e-4)


@language_models
def test_sampling_repeats_with_its_seed(make_mac, make_inputs, model_type):
    model, inputs = make_mac(model_type), make_inputs(1, 3)
    options = {"do_sample": True, "num_return_sequences": 3, "top_k": 0}
    torch.manual_seed(3)
    first = generate(model, inputs, **options)
    torch.manual_seed(3)
    assert torch.equal(first, generate(model, inputs, **options))
    assert first.shape == (6, 8)
    assert len(set(map(tuple, first.tolist()))) > 2
    assert not torch.equal(first, generate(model, inputs, **options))


@pytest.mark.parametrize("use_cache", [True, False])
@searches
@language_models
def test_encodings_made_earlier_give_the_same_captions(make_mac, make_inputs, model_type, search, use_cache):
    model, inputs = make_mac(model_type), make_inputs(1, 3)
    expected = generate(model, inputs, **search)
    with torch.no_grad():
        states = model.get_audio_features(inputs.pop("input_features")).last_hidden_state
    found = generate(model, {**inputs, "encoder_hidden_states": states}, use_cache=use_cache, **search)
    assert torch.equal(found, expected)


def test_audio_comes_once_as_features_or_as_encodings(mac, make_inputs):
    inputs = make_inputs(1)
    states = mac.get_audio_features(inputs["input_features"]).last_hidden_state
    with pytest.raises(ValueError, match="one of `input_features` and `encoder_hidden_states`"):
        mac(**inputs, encoder_hidden_states=states)


def test_the_caption_depends_on_the_audio(mac, make_inputs):
    inputs = make_inputs(1)
    heard = generate(mac, inputs)
    assert not torch.equal(heard, generate(mac, inputs | {"input_features": -inputs["input_features"]}))


@pytest.mark.parametrize("options", [{"num_beams": 4}, {"do_sample": True, "num_return_sequences": 4}], ids=str)
@language_models
def test_every_clip_and_prompt_is_read_once(make_mac, make_inputs, model_type, options):
    model, inputs = make_mac(model_type), make_inputs(1, 3)
    windows, sequences = [], []
    model.model.audio_tower.register_forward_pre_hook(lambda module, args: windows.append(len(args[0])))
    model.lm_head.register_forward_pre_hook(lambda module, args: sequences.append(len(args[0])))
    generate(model, inputs, max_new_tokens=3, **options)
    assert windows == [4]
    assert sequences == [2, 8, 8]


def test_beams_repeat_whole_clips():
    features, num_windows = torch.arange(4.0).view(4, 1, 1), torch.tensor([1, 3])
    repeated = repeat_clips(2, {"input_features": features, "audio_num_windows": num_windows})
    assert repeated["input_features"].flatten().tolist() == [0, 0, 1, 2, 3, 1, 2, 3]
    assert repeated["audio_num_windows"].tolist() == [1, 1, 3, 3]


def test_hidden_states_and_logits_of_beams_have_a_row_each(mac, make_inputs):
    options = {"num_beams": 3, "return_dict_in_generate": True, "output_hidden_states": True, "output_logits": True}
    output = mac.generate(**make_inputs(1, 3), **options)
    assert {len(logits) for logits in output.logits} == {6}
    assert {len(layer) for step in output.hidden_states for layer in step} == {6}


def test_without_window_counts_every_clip_has_one(mac, make_inputs):
    inputs = make_inputs(1, 1)
    expected = generate(mac, inputs, num_beams=3)
    del inputs["audio_num_windows"]
    assert torch.equal(generate(mac, inputs, num_beams=3), expected)


@searches
@language_models
def test_inputs_embeds_replace_ids_and_audio(make_mac, make_inputs, model_type, search):
    model, inputs = make_mac(model_type), make_inputs(1, 3)
    expected = generate(model, inputs, **search)
    features = model.get_audio_features(inputs["input_features"]).pooler_output
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    embeds = model.model.insert_audio(inputs["input_ids"], embeds, features)
    actual = model.generate(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], do_sample=False, **search)
    assert torch.equal(actual, expected)


def test_text_streams(mac, make_inputs, tokenizer):
    inputs = make_inputs(1)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    options = {"streamer": streamer, "do_sample": False}
    thread = threading.Thread(target=mac.generate, kwargs=inputs | options)
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text and text == tokenizer.decode(generate(mac, inputs)[0])


def test_the_audio_token_is_never_written(mac, make_inputs):
    with torch.no_grad():
        mac.lm_head.weight.zero_()[-1] = 100.0
    assert not (generate(mac, make_inputs(1), num_beams=4) == mac.config.audio_token_id).any()


@pytest.mark.parametrize("chosen", [{}, {"num_beams": 4}], ids=["greedy", "beams"])
@language_models
def test_one_encoded_clip_answers_many_prompts(make_mac, make_inputs, model_type, chosen):
    """The mask covers the cached audio too: attention models read positions from it."""
    model = make_mac(model_type)
    prompts = torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]])
    audio = make_inputs(2, prompt=())
    with torch.no_grad():
        cache = model(**audio, use_cache=True).cache
    original = copy.deepcopy(cache)
    forked = copy.deepcopy(cache)
    forked.reorder_cache(torch.zeros(3, dtype=torch.long))
    mask = torch.ones(3, audio["input_ids"].shape[1] + 3, dtype=torch.long)
    answers = generate(model, {"input_ids": prompts}, cache=forked, attention_mask=mask, **chosen)
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = generate(model, make_inputs(2, prompt=tuple(prompt.tolist())), **chosen)
        assert torch.equal(answer[None], expected)
    for kept, before in zip(cache.layers, original.layers, strict=True):
        for name in ("conv_states", "recurrent_states"):
            if hasattr(before, name):
                assert torch.equal(getattr(kept, name)[0], getattr(before, name)[0])


def test_a_kept_state_is_compiled_for_on_request_alone(make_mac, make_inputs, monkeypatch):
    """As if on a GPU, where transformers compiles for every cache that could be compiled for."""
    model = make_mac("mamba2")
    cache = model(**make_inputs(1), use_cache=True).cache
    monkeypatch.setattr(type(model), "device", property(lambda self: torch.device("cuda")))
    config = copy.deepcopy(model.generation_config)
    assert cache.is_compileable and not model._valid_auto_compile_criteria({"cache": cache}, config)
    config.compile_config = CompileConfig()
    assert model._valid_auto_compile_criteria({"cache": cache}, config)


@language_models
def test_generation_in_bfloat16(make_mac, make_inputs, tmp_path, model_type):
    make_mac(model_type).save_pretrained(tmp_path)
    model = MacForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    for search in SEARCHES.values():
        assert generate(model, make_inputs(1, 3), **search).shape == (2 * search.get("num_return_sequences", 1), 8)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_a_compiled_model_with_packed_weights_says_the_same(make_mac, make_inputs):
    """As README has it for CPUs; a clip of another length comes after the first graphs are made."""
    torch.compiler.reset()
    model = make_mac("mamba2")
    clips = [make_inputs(1), make_inputs(2)]
    expected = [generate(model, inputs) for inputs in clips]
    model.forward = torch.compile(model.forward)
    with inductor_config.patch(freezing=True):
        assert all(
            torch.equal(generate(model, inputs), tokens) for inputs, tokens in zip(clips, expected, strict=True)
        )

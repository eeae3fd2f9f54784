"""The states of decoding: one size, one place in memory, and the tokens of the stock model."""

import copy

import pytest
import torch
from torch import nn
from transformers import DynamicCache, Mamba2Config, Mamba2Model

from modeling_mac import MacForConditionalGeneration
from modeling_mac.cache_mac import StateCache
from modeling_mac.modeling_mamba2_mac import Mamba2MacModel


@pytest.fixture
def language_model(mac) -> Mamba2Model:
    return mac.model.language_model


@torch.no_grad()
def states_after(model: nn.Module, batch: int = 4, length: int = 20) -> StateCache:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 40, (batch, length), generator=generator)
    return model(input_ids=ids, use_cache=True).cache


def tensors_of(cache: DynamicCache) -> list[torch.Tensor]:
    return [states for layer in cache.layers for states in (layer.conv_states[0], layer.recurrent_states[0])]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 0, 1, 2], [3, 2, 1, 0], [1, 2, 3, 0], [2, 2, 2, 2]], ids=str)
def test_beams_are_reordered_where_they_lie(language_model, order):
    cache = states_after(language_model)
    assert isinstance(cache, StateCache)
    before, order = copy.deepcopy(cache), torch.tensor(order)
    places = [states.data_ptr() for states in tensors_of(cache)]
    cache.reorder_cache(order)
    assert [states.data_ptr() for states in tensors_of(cache)] == places
    for states, expected in zip(tensors_of(cache), tensors_of(before), strict=True):
        assert torch.equal(states, expected[order])


def test_beams_that_stay_are_not_copied(language_model):
    cache = states_after(language_model)
    row = tensors_of(cache)[1][0].nbytes
    with torch.profiler.profile(profile_memory=True) as profile:
        cache.reorder_cache(torch.tensor([0, 1, 1, 3]))
    assert max(event.cpu_memory_usage for event in profile.events()) <= row


@pytest.mark.parametrize("rows", [[0, 0, 1, 1, 2, 2, 3, 3], [1]], ids=str)
def test_another_number_of_beams(language_model, rows):
    cache = states_after(language_model)
    before, rows = copy.deepcopy(cache), torch.tensor(rows)
    cache.reorder_cache(rows)
    for states, expected in zip(tensors_of(cache), tensors_of(before), strict=True):
        assert torch.equal(states, expected[rows])


def test_an_empty_cache_has_nothing_to_reorder(language_model):
    StateCache(language_model.config).reorder_cache(torch.tensor([0, 0]))


def test_its_size_does_not_grow(language_model):
    short, long = (states_after(language_model, 1, length) for length in (1, 700))
    assert [states.shape for states in tensors_of(short)] == [states.shape for states in tensors_of(long)]
    places = [states.data_ptr() for states in tensors_of(long)]
    with torch.no_grad():
        language_model(torch.ones(1, 1, dtype=torch.long), cache=long, use_cache=True)
    assert [states.data_ptr() for states in tensors_of(long)] == places


@torch.no_grad()
def test_a_decoding_step_allocates_nothing_of_the_size_of_a_state():
    model = Mamba2MacModel(
        Mamba2Config(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_heads=1, state_size=256, n_groups=1)
    ).eval()
    cache = states_after(model, 2)
    with torch.profiler.profile(profile_memory=True) as profile:
        model(torch.ones(2, 1, dtype=torch.long), cache=cache, use_cache=True)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < cache.layers[0].recurrent_states[0].nbytes / 4


def with_stock_mixer(model: MacForConditionalGeneration) -> MacForConditionalGeneration:
    model = copy.deepcopy(model)
    config = copy.deepcopy(model.config.text_config)
    config._attn_implementation = "eager"  # the stock model asks for one that it has, though it attends to nothing
    stock = Mamba2Model(config).eval()
    stock.load_state_dict(model.model.language_model.state_dict())
    model.model.language_model = stock
    return model


@pytest.mark.parametrize("search", [{}, {"num_beams": 4}, {"num_beams": 3, "num_return_sequences": 3}], ids=str)
def test_tokens_are_those_of_the_stock_model(mac, make_inputs, search):
    inputs = make_inputs(1, 3, 2)
    stock = with_stock_mixer(mac)
    expected, actual = (
        model.generate(**inputs, do_sample=False, max_new_tokens=20, **search) for model in (stock, mac)
    )
    assert type(stock.model.language_model) is Mamba2Model
    assert torch.equal(actual, expected)


@torch.no_grad()
def test_transformers_own_cache_serves_too(language_model):
    ids = torch.randint(1, 40, (2, 12), generator=torch.Generator().manual_seed(2))
    theirs = DynamicCache(config=language_model.config)
    for piece in (ids[:, :8], ids[:, 8:9], ids[:, 9:]):
        output = language_model(piece, cache=theirs, use_cache=True).last_hidden_state
    torch.testing.assert_close(output, language_model(ids).last_hidden_state[:, 9:], rtol=0, atol=1e-4)

"""A captured token says what the modules say, whatever else happens to the caches and the weights."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from unittest.mock import MagicMock

import pytest
import torch
from graph_steps import SIZES, assert_same, assert_same_cache, decode, read

from modeling_mac import MacConfig, MacForConditionalGeneration, compile_decoding, graph_step_mac
from modeling_mac.graph_step_mac import CaptureError, capture_on_cuda
from modeling_mac.modeling_mamba2_mac import Mamba2MacModel


@torch.no_grad()
def test_it_says_what_the_modules_say(plain, model, ids, captures):
    for rows in (3, 1):
        cache, expected_cache = read(model, ids[:rows, :4]), read(plain, ids[:rows, :4])
        assert_same(decode(model, ids[:rows, 4:], cache), decode(plain, ids[:rows, 4:], expected_cache))
        assert_same_cache(cache, expected_cache)
    assert captures == [0, 1], "one for each number of rows"
    assert_same(decode(model, ids, read(model, ids)), decode(plain, ids, read(plain, ids)))
    assert captures == [0, 1], "the next caption needs no new one"


@torch.no_grad()
def test_outputs_outlive_the_next_token(plain, model, ids):
    cache = read(model, ids)
    first = decode(model, ids[:, :1], cache)
    kept = first.clone()
    decode(model, ids[:, 1:2], cache)
    assert torch.equal(first, kept)


@torch.no_grad()
def test_two_captions_by_turns(plain, model, ids, captures):
    """One graph reads and writes now the states of the one and now those of the other."""
    prompts = ids, ids.flip(1)
    caches, others = [read(model, prompt) for prompt in prompts], [read(plain, prompt) for prompt in prompts]
    for column in range(4):
        for cache, other in zip(caches, others, strict=True):
            token = ids[:, column : column + 1]
            assert_same(decode(model, token, cache), decode(plain, token, other))
    for cache, other in zip(caches, others, strict=True):
        assert_same_cache(cache, other)
    assert captures == [0]


@torch.no_grad()
def test_a_kept_cache_stays_as_it_was(plain, model, ids):
    cache = read(model, ids)
    decode(model, ids[:, :2], cache)
    kept = copy.deepcopy(cache)
    one = decode(model, ids[:, 2:5], cache)
    decode(model, ids, read(model, ids))
    other = read(plain, torch.cat([ids, ids[:, :2]], dim=1))
    assert_same_cache(kept, other)
    assert_same(decode(model, ids[:, 2:5], kept), one)


@torch.no_grad()
def test_no_cache_holds_memory_of_a_graph(plain, model, ids):
    """So that whatever shares the memory of its states stays as it is."""
    cache = read(model, ids)
    decode(model, ids[:, :2], cache)
    view = cache.layers[0].recurrent_states[0][1:]
    kept = view.clone()
    decode(model, ids, read(model, ids.flip(1)))
    assert torch.equal(view, kept)


@torch.no_grad()
def test_states_of_another_dtype_have_a_graph_of_their_own(plain, model, ids, captures, device):
    """As a prompt that was read in another precision leaves them."""
    if device == "cuda":
        pytest.skip("causal-conv1d takes states of the dtype of its tokens alone")
    rounded, other = read(model, ids), read(plain, ids)
    for cache in (rounded, other):
        for layer in cache.layers:
            layer.conv_states[0] = layer.conv_states[0].bfloat16()
    assert_same(decode(model, ids[:, :3], rounded), decode(plain, ids[:, :3], other))
    assert_same(decode(model, ids, read(model, ids)), decode(plain, ids, read(plain, ids)))
    assert captures == [0, 1]


@torch.no_grad()
def test_beams_are_reordered(plain, model, ids):
    found, caches = [], []
    for each in (model, plain):
        cache = read(each, ids)
        first = decode(each, ids[:, :1], cache)
        cache.reorder_cache(torch.tensor([2, 0, 0], device=ids.device))
        second = decode(each, ids[:, 1:2], cache)
        cache.reorder_cache(torch.tensor([1, 1, 2, 0], device=ids.device))  # another number: another graph
        third = decode(each, ids[[0, 1, 2, 0], 2:3], cache)
        decode(each, ids, read(each, ids))
        fourth = decode(each, ids[[0, 1, 2, 0], 3:4], cache)
        found.append(torch.cat([first, second, third, fourth]))
        caches.append(cache)
    assert_same(*found)
    assert_same_cache(*caches)


@torch.no_grad()
def test_the_graphs_of_the_last_numbers_of_rows_are_kept(model, ids, captures, monkeypatch):
    monkeypatch.setattr(graph_step_mac, "MOST_GRAPHS", 2)
    for number, captured in ((1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)):
        decode(model, ids[:number, :1], read(model, ids[:number]))
        assert (len(captures), len(model.step_graphs.graphs)) == (captured, min(captured, 2))


@torch.no_grad()
def test_weights_may_change_between_tokens(plain, model, ids, captures):
    caches = {each: read(each, ids) for each in (plain, model)}
    first = [decode(each, ids[:, :2], cache) for each, cache in caches.items()]
    for each in caches:
        for parameter in each.layers.parameters():
            parameter.mul_(1.5)  # in place: the graph reads them where they are
    second = [decode(each, ids[:, 2:4], cache) for each, cache in caches.items()]
    assert captures == [0]
    for each in caches:
        for parameter in each.layers.parameters():
            parameter.data = 0.5 * parameter  # elsewhere
    third = [decode(each, ids[:, 4:6], cache) for each, cache in caches.items()]
    assert captures == [0, 1]
    for each in caches:
        mixer = each.layers[0].mixer
        mixer.in_proj = torch.nn.utils.skip_init(torch.nn.Linear, *mixer.in_proj.weight.T.shape, bias=False)
        mixer.in_proj.weight.fill_(0.1)
        each.to(ids.device)
    fourth = [decode(each, ids[:, 6:8], cache) for each, cache in caches.items()]
    assert captures == [0, 1, 2]
    for each in caches:
        each.norm_f = copy.deepcopy(each.norm_f)
        each.norm_f.weight.mul_(2)
    fifth = [decode(each, ids[:, 8:], cache) for each, cache in caches.items()]
    for each in caches:
        each.layers.append(each.layers[0])  # a block more, which shares its state with the first
    sixth = [decode(each, ids[:, 8:], cache) for each, cache in caches.items()]
    assert captures == [0, 1, 2, 3, 4]
    for outputs in (first, second, third, fourth, fifth, sixth):
        assert_same(*outputs)


def test_what_was_captured_in_inference_mode_is_replayed_outside(plain, model, ids, captures):
    with torch.inference_mode():
        decode(model, ids, read(model, ids))
    with torch.no_grad():
        assert_same(decode(model, ids, read(model, ids)), decode(plain, ids, read(plain, ids)))
    assert captures == [0]


@torch.no_grad()
def test_a_copy_makes_graphs_of_its_own(plain, model, ids, captures):
    decode(model, ids, read(model, ids))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.step_graphs is not model.step_graphs and not copied.step_graphs.graphs
        for parameter in copied.layers.parameters():
            parameter.zero_()
        assert (decode(copied, ids, read(copied, ids)) - decode(plain, ids, read(plain, ids))).abs().max() > 0.1
    assert captures == [0, 1, 2]


def test_threads_take_turns(plain, model, ids):
    """With beams, so that each changes its cache also between the tokens."""
    prompts = [ids.roll(shift, dims=1) for shift in range(4)]
    order = torch.tensor([1, 1, 0], device=ids.device)

    def caption(each: Mamba2MacModel, prompt: torch.Tensor) -> torch.Tensor:
        outputs = []
        with torch.no_grad():
            cache = read(each, prompt)
            for column in range(ids.shape[1]):
                outputs.append(decode(each, ids[:, column : column + 1], cache))
                cache.reorder_cache(order)
        return torch.cat(outputs, dim=1)

    expected = [caption(plain, prompt) for prompt in prompts]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(partial(caption, model), prompts))
    finally:
        sys.setswitchinterval(before)
    for output, other in zip(found, expected, strict=True):
        assert_same(output, other)


@pytest.mark.parametrize("fails", [False, True])
def test_a_capture_has_a_stream_of_its_device(monkeypatch, fails):
    """What torch would do, by a stand-in: run first, then capture, both on the one stream of that device."""
    happened = []
    tell = lambda what: happened.append(what) or nullcontext()  # noqa: E731
    own, outer = MagicMock(), MagicMock()
    own.wait_stream.side_effect = lambda stream: tell("own waits")
    outer.wait_stream.side_effect = lambda stream: tell("outer waits")
    cuda = MagicMock()
    cuda.current_stream.return_value = outer
    cuda.stream.side_effect = lambda stream: tell("on own" if stream is own else "on outer")
    cuda.graph.side_effect = lambda graph, **options: tell(options)
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: tell("cleared"), raising=False)
    monkeypatch.setattr(graph_step_mac, "capture_stream", lambda device: own)

    def step() -> None:
        happened.append("step")
        if fails and happened.count("step") == 2:
            raise RuntimeError("it waits")

    with pytest.raises(CaptureError, match="it waits") if fails else nullcontext():
        replay = capture_on_cuda(step, torch.device("cuda:1"))
        assert replay is cuda.CUDAGraph.return_value.replay
    options = {"stream": own, "capture_error_mode": "thread_local"}
    assert happened[:5] == ["on outer", "own waits", "on own", "step", "outer waits"]
    assert happened[5:] == ["cleared", options, "step", "cleared"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"num_beams": 4}, {"do_sample": True, "num_return_sequences": 3}], ids=str)
def test_generate_says_the_same(options, dtype, device, captures):
    torch.manual_seed(0)
    audio = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = MacConfig(
        audio_config=audio, text_config={**SIZES, "model_type": "mamba2"}, audio_token_id=39, tie_word_embeddings=True
    )
    model = MacForConditionalGeneration(config).eval().to(device, dtype)
    model.generation_config.update(eos_token_id=None, pad_token_id=0, max_new_tokens=12)
    ids = torch.randint(1, 39, (2, 7), device=device)
    said = []
    for graphs in (False, True):
        if graphs:
            compile_decoding(model)
        torch.manual_seed(3)
        said.append(model.generate(ids, output_logits=True, return_dict_in_generate=True, **options))
    assert len(captures) == 1
    exact = device == "cpu" or dtype == torch.float32  # a library may multiply in another way where it is captured
    assert not exact or torch.equal(said[0].sequences, said[1].sequences)
    tolerance = 1e-4 if exact else 0.05
    torch.testing.assert_close(said[1].logits[0], said[0].logits[0], rtol=tolerance, atol=tolerance)
    if exact:
        for one, other in zip(said[0].logits, said[1].logits, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)

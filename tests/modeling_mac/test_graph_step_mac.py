"""
A captured token: what the modules say, with states that are lent to one cache at a time.

On a CPU, torch's tracer stands in for a CUDA graph. As that does, it records the operations on tensors alone, and a
replay reads and writes the memory of the capture. On a CUDA device the same tests run on real graphs.
"""

import copy
import pickle
from collections.abc import Callable, Iterator
from threading import Thread

import peft
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from transformers import DynamicCache, Mamba2Config

from modeling_mac import MacConfig, MacForConditionalGeneration, compile_decoding, graph_step_mac, modeling_mamba2_mac
from modeling_mac.cache_mac import StateCache
from modeling_mac.graph_step_mac import MOST_GRAPHS
from modeling_mac.modeling_mamba2_mac import Mamba2MacModel


@pytest.fixture(
    params=[
        "stand-in",
        pytest.param(
            "graph",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ]
)
def device(request, monkeypatch) -> Iterator[str]:
    """Where the graphs run."""
    if request.param == "graph":
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield "cuda"
        torch.set_float32_matmul_precision(before)
    else:
        monkeypatch.setattr(graph_step_mac, "GRAPH_DEVICE", "cpu")
        monkeypatch.setattr("modeling_mac.compiling_mac.GRAPH_DEVICE", "cpu")
        monkeypatch.setattr(modeling_mamba2_mac, "can_step", lambda *arguments: False)
        yield "cpu"


@pytest.fixture(autouse=True)
def captures(device, monkeypatch) -> list[int]:
    """A number for every capture."""
    captured: list[int] = []
    real = graph_step_mac.capture_on_cuda

    def capture(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
        captured.append(len(captured))
        if device.type == "cuda":
            return real(step, device)
        step()  # the first run, which loads what is needed
        with torch.no_grad():
            return make_fx(step)()  # it traces by running, which a capture does not: the states are copied in later

    monkeypatch.setattr(graph_step_mac, "capture_on_cuda", capture)
    return captured


SIZES = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 16,
    "n_groups": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture
def plain(device) -> Mamba2MacModel:
    """A model that decodes as ever."""
    torch.manual_seed(0)
    model = Mamba2MacModel(Mamba2Config(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(device)


@pytest.fixture
def model(plain) -> Mamba2MacModel:
    """The same with graphs."""
    model = copy.deepcopy(plain)
    compile_decoding(model)
    return model


@pytest.fixture
def ids(device) -> torch.Tensor:
    return torch.randint(1, 40, (3, 9), generator=torch.Generator().manual_seed(1)).to(device)


def decode(model: Mamba2MacModel, ids: torch.Tensor, cache) -> torch.Tensor:
    """Outputs, (batch, length, width), of tokens that are decoded one by one after a cache."""
    embeddings = model.get_input_embeddings()(ids)
    steps = [model(inputs_embeds=token, cache=cache, use_cache=True) for token in embeddings.split(1, dim=1)]
    return torch.cat([step.last_hidden_state for step in steps], dim=1)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def assert_same_cache(actual: StateCache, expected: StateCache) -> None:
    for layer, other in zip(actual.layers, expected.layers, strict=True):
        assert_same(layer.conv_states[0], other.conv_states[0])
        assert_same(layer.recurrent_states[0], other.recurrent_states[0])


def read(model: Mamba2MacModel, ids: torch.Tensor) -> StateCache:
    return model(ids, use_cache=True).cache


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
    """The states are lent now to the one and now to the other."""
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
    """A copy is no part of the graph, and neither is a cache that another one follows."""
    cache = read(model, ids)
    decode(model, ids[:, :2], cache)
    kept = copy.deepcopy(cache)
    one = decode(model, ids[:, 2:5], cache)
    decode(model, ids, read(model, ids))
    other = read(plain, torch.cat([ids, ids[:, :2]], dim=1))
    assert_same_cache(kept, other)
    assert_same(decode(model, ids[:, 2:5], kept), one)


@torch.no_grad()
def test_a_view_of_a_cache_goes_on(plain, model, ids):
    """A shallow copy has the layers of the cache, which may be gone when the states are lent again."""
    cache = read(model, ids)
    decode(model, ids[:, :2], cache)
    cache = copy.copy(cache)
    decode(model, ids, read(model, ids))
    assert_same_cache(cache, read(plain, torch.cat([ids, ids[:, :2]], dim=1)))


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
        decode(each, ids, read(each, ids))  # takes the states of the first graph, which this cache has left
        caches.append(copy.deepcopy(cache))
        fourth = decode(each, ids[[0, 1, 2, 0], 3:4], cache)
        found.append(torch.cat([first, second, third, fourth]))
    assert_same(*found)
    assert_same_cache(*caches)


@torch.no_grad()
def test_few_graphs_are_kept(plain, model, ids, captures):
    rows = ids[:1].repeat(MOST_GRAPHS + 1, 1)
    caches = {number: read(model, rows[:number]) for number in range(1, MOST_GRAPHS + 2)}
    others = {number: read(plain, rows[:number]) for number in caches}
    for number in (*caches, *caches):
        token = rows[:number, :1]
        assert_same(decode(model, token, caches[number]), decode(plain, token, others[number]))
        assert len(model.step_graphs.graphs) <= MOST_GRAPHS
    assert len(captures) > MOST_GRAPHS + 1


@torch.no_grad()
def test_weights_may_change_between_captions(plain, model, ids, captures):
    decode(model, ids, read(model, ids))
    for each in (plain, model):
        for parameter in each.layers.parameters():
            parameter.mul_(1.5)  # in place: the graph reads them where they are
    assert_same(decode(model, ids, read(model, ids)), decode(plain, ids, read(plain, ids)))
    assert captures == [0]
    for each in (plain, model):
        for parameter in each.layers.parameters():
            parameter.data = 0.5 * parameter  # elsewhere
    assert_same(decode(model, ids, read(model, ids)), decode(plain, ids, read(plain, ids)))
    assert captures == [0, 1]


@torch.no_grad()
def test_what_a_library_changed_goes_by_the_modules(plain, model, ids, captures):
    decode(model, ids, read(model, ids))
    expected = decode(plain, ids, read(plain, ids))
    hook = model.layers[1].mixer.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert (decode(model, ids, read(model, ids)) - expected).abs().max() > 0.1
    hook.remove()
    assert_same(decode(model, ids, read(model, ids)), expected)
    lora = peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["in_proj"], init_lora_weights=False), model)
    assert (decode(lora, ids, read(lora, ids)) - expected).abs().max() > 0.1
    assert captures == [0]
    with pytest.raises(ValueError, match="layers of torch's own decodes as a CUDA graph, and there is Linear"):
        compile_decoding(lora)


@torch.no_grad()
def test_the_cache_of_transformers_goes_by_the_modules(plain, model, ids, captures):
    outputs = []
    for each in (plain, model):
        cache = each(ids, cache=DynamicCache(config=each.config), use_cache=True).cache
        outputs.append(decode(each, ids, cache))
    assert_same(*outputs)
    assert captures == []


def test_gradients_go_by_the_modules(model, ids, captures):
    with torch.no_grad():
        cache = read(model, ids)
        decode(model, ids[:, :1], cache)
    decode(model, ids[:, :1], cache).sum().backward()
    assert model.layers[0].mixer.in_proj.weight.grad.abs().max() > 0
    assert captures == [0]


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
    prompts = [ids.roll(shift, dims=1) for shift in range(4)]
    found: dict[int, torch.Tensor] = {}

    def caption(number: int) -> None:
        with torch.no_grad():
            found[number] = decode(model, ids, read(model, prompts[number]))

    with torch.no_grad():
        expected = [decode(plain, ids, read(plain, prompt)) for prompt in prompts]
    threads = [Thread(target=caption, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, output in enumerate(expected):
        assert_same(found[number], output)


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

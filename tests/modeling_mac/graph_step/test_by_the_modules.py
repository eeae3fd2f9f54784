"""What no graph may stand for, such as hooks, adapters and gradients, goes by the modules."""

import copy

import peft
import pytest
import torch
from graph_steps import assert_same, decode, read
from transformers import DynamicCache

from modeling_mac import compile_decoding, graph_step_mac
from modeling_mac.graph_step_mac import CaptureError


@torch.no_grad()
def test_whatever_is_no_single_token_goes_by_the_modules(plain, model, ids, captures):
    embeddings = model.get_input_embeddings()
    for each in (plain, model):
        one = each(inputs_embeds=embeddings(ids[:, :1]), use_cache=True)  # a prompt of one token
        several = each(inputs_embeds=embeddings(ids[:, 1:4]), cache=one.cache, use_cache=True)
        outputs = [one.last_hidden_state, several.last_hidden_state, decode(each, ids[:, 4:], several.cache)]
        several = each(inputs_embeds=embeddings(ids[:, 1:4]), cache=several.cache, use_cache=True)
        outputs += [several.last_hidden_state, decode(each, ids[:, :2], several.cache)]
        if each is plain:
            expected = outputs
    for output, other in zip(outputs, expected, strict=True):
        assert_same(output, other)
    assert captures == [0]


@torch.no_grad()
def test_what_a_graph_could_not_do_goes_by_the_modules(model, ids, captures, monkeypatch):
    cache = read(model, ids)
    with torch.autocast(ids.device.type, torch.bfloat16):
        decode(model, ids[:, :1], copy.deepcopy(cache))
    recording = copy.deepcopy(cache)
    recording.activate_past_recording()
    decode(model, ids[:, :1], recording)
    embeddings = model.get_input_embeddings()(ids[:, :1])
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        model(inputs_embeds=embeddings, cache=copy.deepcopy(cache), use_cache=True)
    with monkeypatch.context() as patch:
        patch.setattr(graph_step_mac, "GRAPH_DEVICE", "meta")
        model(inputs_embeds=embeddings, cache=copy.deepcopy(cache), use_cache=True)
    assert captures == []
    decode(model, ids[:, :1], cache)
    assert captures == [0]


@pytest.mark.parametrize(
    "place", ["norm_f", "layers.1", "layers.1.mixer", "layers.0.mixer.act", "layers.0.mixer.out_proj"]
)
@torch.no_grad()
def test_hooks_are_called(plain, model, ids, captures, place):
    """Also one that comes in the middle of a caption."""
    caches = [read(each, ids) for each in (model, plain)]
    assert_same(*(decode(each, ids[:, :2], cache) for each, cache in zip((model, plain), caches, strict=True)))
    hooks = [
        each.get_submodule(place).register_forward_hook(lambda module, inputs, output: 2 * output)
        for each in (model, plain)
    ]
    assert_same(*(decode(each, ids[:, 2:4], cache) for each, cache in zip((model, plain), caches, strict=True)))
    assert captures == [0]
    for hook in hooks:
        hook.remove()
    assert_same(*(decode(each, ids[:, 4:6], cache) for each, cache in zip((model, plain), caches, strict=True)))


@pytest.mark.parametrize(
    "options", [{"target_modules": ["in_proj"]}, {"target_modules": ["embeddings"], "modules_to_save": ["mixer"]}]
)
@torch.no_grad()
def test_adapters_are_called(model, ids, captures, options):
    before = decode(model, ids, read(model, ids))
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(init_lora_weights=False, **options))
    for name, parameter in adapted.named_parameters():
        if "modules_to_save" in name:
            parameter.mul_(1.5)
    inner = adapted.base_model.model
    assert (decode(inner, ids, read(inner, ids)) - before).abs().max() > 0.05
    with adapted.disable_adapter():
        assert_same(decode(inner, ids, read(inner, ids)), before)
    assert captures == [0]
    with pytest.raises(ValueError, match=r"decodes as a CUDA graph, and .*leave out what changed them"):
        compile_decoding(inner)


@torch.no_grad()
def test_an_adapter_may_come_later(model, ids, captures):
    before = decode(model, ids, read(model, ids))
    config = peft.LoraConfig(target_modules=["in_proj"], modules_to_save=["norm_f"], init_lora_weights=False)
    inner = peft.get_peft_model(model, config).base_model.model
    assert (decode(inner, ids, read(inner, ids)) - before).abs().max() > 0.05
    assert captures == [0] and not model.step_graphs.graphs


@torch.no_grad()
def test_weights_of_another_kind_are_not_captured(model):
    class Strange(torch.nn.Parameter):
        """As a library's that quantises or shards."""

    model.layers[1].mixer.in_proj.weight = Strange(model.layers[1].mixer.in_proj.weight)
    with pytest.raises(ValueError, match="there are weights of the kind Strange in this one"):
        compile_decoding(model)


@torch.no_grad()
def test_where_nothing_can_be_captured_a_warning_says_so(plain, model, ids, monkeypatch, caplog):
    def fail(step, device):
        raise CaptureError("operation not permitted when stream is capturing")

    decode(model, ids[:1], read(model, ids[:1]))
    [graph] = model.step_graphs.graphs.values()
    monkeypatch.setattr(graph_step_mac, "capture_on_cuda", fail)
    for _ in range(2):
        assert_same(decode(model, ids, read(model, ids)), decode(plain, ids, read(plain, ids)))
    assert caplog.text.count("as CUDA graphs, since one could not be: operation not permitted") == 1
    replays = []
    monkeypatch.setattr(graph, "replay", lambda replay=graph.replay: replays.append(1) or replay())
    decode(model, ids[:1, :2], read(model, ids[:1]))
    assert len(replays) == 2, "what was captured before goes on"


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


def test_a_prompt_that_was_read_with_gradients(plain, model, ids, captures):
    caches = [read(each, ids) for each in (model, plain)]
    with torch.no_grad():
        assert_same(*(decode(each, ids[:, :3], cache) for each, cache in zip((model, plain), caches, strict=True)))
    assert captures == []

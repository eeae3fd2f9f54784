"""EAT against what upstream's own code gave for the same small model, and the options upstream does not have."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForAudioClassification, pipeline

from modeling_mac import EatConfig, EatForAudioClassification, EatModel, attention_mac, int8_mac, modeling_eat
from modeling_mac.conversion_mac import convert_eat_state_dict
from modeling_mac.int8_mac import round_model
from modeling_mac.modeling_eat import sin_cos_positions
from processing_mac import MacFeatureExtractor


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


@pytest.fixture
def pretrained(eat_weights) -> EatModel:
    model = EatModel(EatConfig(**TINY)).eval()
    model.load_state_dict(convert_eat_state_dict(eat_weights["original_pretrain"]))
    return model


@pytest.fixture
def finetuned(eat_weights) -> EatForAudioClassification:
    model = EatForAudioClassification(EatConfig(**TINY, num_labels=5)).eval()
    model.load_state_dict(convert_eat_state_dict(eat_weights["original_finetune"], with_head=True))
    return model


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))


def with_attention(model: torch.nn.Module, implementation: str) -> torch.nn.Module:
    model.set_attn_implementation(implementation)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("frames", [512, 1024, 1200])
@torch.no_grad()
def test_golden_tokens(pretrained, golden, frames, attention):
    features = golden["in.input_1200" if frames == 1200 else "in.input_1024"].squeeze(1)[:, :frames]
    tokens = with_attention(pretrained, attention)(features).last_hidden_state
    torch.testing.assert_close(tokens, golden[f"out.pretrain.tokens_{frames}"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_golden_patches_and_embeddings(pretrained, golden):
    features = golden["in.input_1024"].squeeze(1)
    patches = pretrained.embeddings.patch_embedding(features[:, None]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches, golden["out.pretrain.patch_1024"], rtol=0, atol=1e-5)
    torch.testing.assert_close(pretrained.embeddings(features), golden["out.pretrain.embed_1024"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_golden_logits(finetuned, golden):
    features = golden["in.input_1024"].squeeze(1)
    torch.testing.assert_close(finetuned(features).logits, golden["out.finetune.logits_1024"], rtol=0, atol=1e-5)
    tokens = finetuned.eat(features).last_hidden_state
    torch.testing.assert_close(tokens, golden["out.finetune.tokens_1024"], rtol=0, atol=1e-5)


def test_positions_are_upstreams(golden):
    upstream = golden["sd.pretrain.modality_encoders.IMAGE.fixed_positional_encoder.positions"]
    assert torch.equal(sin_cos_positions(32, 8)[:, : upstream.shape[1]], upstream)


@torch.no_grad()
def test_one_batch_equals_each_window_alone(pretrained, windows):
    together = pretrained(windows).last_hidden_state
    alone = torch.cat([pretrained(window[None]).last_hidden_state for window in windows])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_tokens_are_time_major(pretrained, windows):
    """Before the blocks mix them, changing patch (t=3, f=5) changes token 1 + 3 * 8 + 5 alone."""
    changed = windows.clone()
    changed[:, 48:64, 80:96] += 1
    difference = (pretrained.embeddings(windows) - pretrained.embeddings(changed)).abs().sum((0, 2))
    assert difference.nonzero().flatten().tolist() == [1 + 3 * 8 + 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_positions_survive_saving_and_loading(pretrained, windows, tmp_path, dtype):
    """They are not in the file, and a buffer that is not comes back as uninitialised memory unless it is rewritten."""
    pretrained.to(dtype).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=dtype).eval()
    assert type(loaded) is EatModel
    assert torch.equal(loaded.embeddings.positions.to(dtype), sin_cos_positions(32, 8).to(dtype))
    assert torch.equal(loaded(windows).last_hidden_state, pretrained(windows).last_hidden_state)


@torch.no_grad()
def test_classifier_round_trip(finetuned, windows, tmp_path):
    finetuned.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert type(loaded) is EatForAudioClassification
    assert torch.equal(loaded(windows).logits, finetuned(windows).logits)


@torch.no_grad()
def test_kept_patches_are_chosen_in_order(pretrained, windows):
    kept = torch.stack([torch.randperm(64)[:10] for _ in range(3)])
    everything = pretrained.embeddings(windows)
    chosen = pretrained.embeddings(windows, kept)
    assert chosen.shape == (3, 11, 32)
    assert torch.equal(chosen[:, 0], everything[:, 0])
    for window in range(3):
        assert torch.equal(chosen[window, 1:], everything[window, 1 + kept[window]])
    assert pretrained(windows, kept_patches=kept).last_hidden_state.shape == (3, 11, 32)


@torch.no_grad()
def test_keeping_all_patches_changes_nothing(pretrained, windows):
    kept = torch.arange(64).expand(3, -1)
    assert torch.equal(pretrained(windows, kept_patches=kept)[0], pretrained(windows)[0])


@torch.no_grad()
def test_hidden_states_and_attentions(pretrained, windows):
    outputs = with_attention(pretrained, "eager")(windows, output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in outputs.hidden_states] == [(3, 65, 32)] * 3
    assert torch.equal(outputs.hidden_states[0], pretrained.embeddings(windows))
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    assert [weights.shape for weights in outputs.attentions] == [(3, 2, 65, 65)] * 2
    torch.testing.assert_close(outputs.attentions[1].sum(-1), torch.ones(3, 2, 65))


@torch.no_grad()
def test_the_classifier_passes_its_encoders_states_on(finetuned, windows):
    outputs = with_attention(finetuned, "eager")(windows, output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == 3
    assert len(outputs.attentions) == 2
    as_tuple = finetuned(windows, return_dict=False)
    assert torch.equal(as_tuple[0], outputs.logits)


def gradients(model: torch.nn.Module, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(windows).last_hidden_state.square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_gradient_checkpointing_gives_the_same_gradients(pretrained, windows):
    pretrained.train()
    expected = gradients(pretrained, windows)
    pretrained.gradient_checkpointing_enable()
    calls = count_calls(pretrained.layers[0].mlp)
    actual = gradients(pretrained, windows)
    assert len(calls) == 2, "the block is computed again in the backward pass"
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-5, atol=1e-7)


def count_calls(module: torch.nn.Module) -> list:
    calls: list = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


def test_drop_path_acts_in_training_only(eat_weights, windows):
    model = EatModel(EatConfig(**TINY, drop_path_rate=0.9))
    model.load_state_dict(convert_eat_state_dict(eat_weights["original_pretrain"]))
    assert [layer.drop_path for layer in model.layers] == [0.0, 0.9]
    plain = EatModel(EatConfig(**TINY))
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval()(windows)[0], plain.eval()(windows)[0])
        model.train()
        assert not torch.equal(model(windows)[0], plain(windows)[0])


def test_drop_path_drops_whole_windows_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = EatModel(EatConfig(**TINY, drop_path_rate=0.25)).layers[1]
    branch = layer.stochastic_depth(torch.ones(4000, 3, 2))
    assert branch.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(branch, branch[:, :1, :1].expand_as(branch))
    assert branch.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 1024, 128), r"\(1, 1, 1024, 128\); expected \(windows, frames, 128\)"),
        ((1024, 128), r"expected \(windows, frames, 128\)"),
        ((1, 1024, 80), r"expected \(windows, frames, 128\)"),
        ((1, 1000, 128), "1000 frames; expected a multiple of 16"),
        ((1, 0, 128), "0 frames"),
        ((1, 769 * 16, 128), "12304 frames; expected a multiple of 16, at most 12288"),
    ],
)
def test_wrong_shapes_are_refused(pretrained, shape, message):
    with pytest.raises(ValueError, match=message):
        pretrained(torch.zeros(shape))


def test_classification_losses(finetuned, windows):
    logits = finetuned(windows).logits
    classes = torch.tensor([0, 4, 2])
    expected = torch.nn.functional.cross_entropy(logits, classes)
    torch.testing.assert_close(finetuned(windows, labels=classes).loss, expected)
    finetuned.config.problem_type = "multi_label_classification"
    several = torch.tensor([[1.0, 0, 0, 1, 0]] * 3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, several)
    torch.testing.assert_close(finetuned(windows, labels=several).loss, expected)


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [
        ({}, 85_254_144),
        (
            {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
            302_575_616,
        ),
    ],
    ids=["base", "large"],
)
def test_parameter_counts(sizes, parameters):
    with torch.device("meta"):
        model = EatModel(EatConfig(**sizes))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_new_weights_are_xavier():
    torch.manual_seed(0)
    model = EatModel(EatConfig(**TINY | {"hidden_size": 256}))
    for weight in (model.layers[0].attention.qkv.weight, model.embeddings.patch_embedding.weight.flatten(1)):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@torch.no_grad()
def test_half_precision_input_is_cast(pretrained, windows):
    outputs = pretrained.bfloat16()(windows)
    assert outputs.last_hidden_state.dtype == torch.bfloat16
    expected = pretrained.float()(windows).last_hidden_state
    torch.testing.assert_close(outputs.last_hidden_state.float(), expected, rtol=0, atol=0.1)


@torch.no_grad()
def test_a_clip_is_classified_by_all_of_its_windows():
    """`pipeline("audio-classification")` heard the first window alone."""
    config = EatConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=5)
    model = EatForAudioClassification(config).eval()
    windows = torch.randn(4, 1024, 128)
    alone = model(windows).logits
    logits = model(windows, audio_num_windows=torch.tensor([3, 1])).logits
    torch.testing.assert_close(logits, torch.stack([alone[:3].mean(0), alone[3]]))
    classify = pipeline("audio-classification", model=model, feature_extractor=MacFeatureExtractor())
    noise = np.random.default_rng(0).normal(size=16_000 * 25).astype(np.float32) / 10
    best = classify(noise, top_k=1)[0]
    features = MacFeatureExtractor()(noise, sampling_rate=16_000)["input_features"]
    assert best["score"] == pytest.approx(model(features).logits.mean(0).softmax(-1).max().item(), rel=1e-4)


@pytest.mark.parametrize("fast_bf16", [True, False])
def test_branches_of_8_bits_are_bf16_where_that_is_fast(pretrained, windows, monkeypatch, fast_bf16):
    """Between their layers, too: casts to float32 and back took a tenth of the encoder's time."""
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    monkeypatch.setattr(int8_mac, "FAST_BF16", fast_bf16)
    with torch.no_grad():
        expected = pretrained(windows).last_hidden_state
    round_model(pretrained)
    inside, gelu = [], torch.nn.functional.gelu
    monkeypatch.setattr(torch.nn.functional, "gelu", lambda input: inside.append(input.dtype) or gelu(input))
    with torch.no_grad():
        tokens = pretrained(windows).last_hidden_state
    assert set(inside) == {torch.bfloat16 if fast_bf16 else torch.float32}
    assert tokens.dtype == torch.float32 and (tokens - expected).norm() < 0.03 * expected.norm()
    pretrained(windows)  # with gradients nothing is
    assert inside[-1] == torch.float32
    with torch.no_grad():
        assert pretrained.half()(windows).last_hidden_state.dtype == torch.float16  # nor what came in float16


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_bf16_attends_by_plain_products_where_they_are_fast(pretrained, windows, monkeypatch, attention):
    """Whoever asks for eager gets its weights, and where bf16 is slow torch's own kernel is kept."""
    model, plain = with_attention(pretrained.bfloat16(), attention), modeling_eat.attend_by_window
    monkeypatch.setattr(attention_mac, "FAST_BF16", False)
    expected = model(windows).last_hidden_state
    asked = []
    monkeypatch.setattr(modeling_eat, "attend_by_window", lambda *args, **kw: asked.append(1) or plain(*args, **kw))
    torch.testing.assert_close(model(windows).last_hidden_state, expected, rtol=0, atol=0)
    assert not asked
    monkeypatch.setattr(attention_mac, "FAST_BF16", True)
    tokens = model(windows).last_hidden_state
    assert len(asked) == (2 if attention == "sdpa" else 0)
    assert (tokens - expected).norm() < 0.02 * expected.norm()

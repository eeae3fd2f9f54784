"""TopK pruning against the golden outputs of its published code (arXiv 2504.01690), and inside EAT."""

from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file
from torch.nn import functional as F

from modeling_mac import EatConfig, EatModel, MacConfig
from modeling_mac.token_pruning_mac import (
    gather_tokens,
    keep_rate_at,
    num_kept,
    patch_scores,
    patch_statistics,
    top_patches,
)


SCORES = {"audiomae": "mean", "ast": "cls"}


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return load_file(Path(__file__).parents[1] / "fixtures" / "topk_pruning.safetensors")


def embed(weights: dict[str, torch.Tensor], fbank: torch.Tensor) -> torch.Tensor:
    """(windows, frames, mel) -> summary tokens and patches, with positions."""
    image = fbank.unsqueeze(1) if "v.dist_token" not in weights else fbank.unsqueeze(1).transpose(2, 3)
    prefix = "v." if "v.dist_token" in weights else ""
    convolution = [weights[f"{prefix}patch_embed.proj.{kind}"] for kind in ("weight", "bias")]
    patches = F.conv2d(image, *convolution, stride=16).flatten(2).transpose(1, 2)
    front = [weights[f"{prefix}{name}"] for name in ("cls_token", "dist_token") if f"{prefix}{name}" in weights]
    tokens = torch.cat([*(token.expand(len(fbank), -1, -1) for token in front), patches], dim=1)
    return tokens + weights[f"{prefix}pos_embed"]


def run_published(golden: dict[str, torch.Tensor], name: str, keep_rate: float, loudest: float | None = None):
    """
    The published pre-norm ViT on our scores and choices: all tokens, scores and kept patches of each pruning.

    With `loudest`, for one window, the patches of at most this intensity are dropped after block 2.
    """
    start = f"sd.{name}."
    weights = {key.removeprefix(start): value for key, value in golden.items() if key.startswith(start)}
    blocks, extra = ("v.blocks", 2) if name == "ast" else ("blocks", 1)
    fbank = golden["in.fbank"] if loudest is None else golden["in.fbank"][:1]
    tokens, scores = embed(weights, fbank), {}
    kept = torch.arange(tokens.shape[1] - extra).expand(len(tokens), -1)
    for index in range(12):

        def part(module: str, index: int = index) -> list[torch.Tensor]:
            return [weights[f"{blocks}.{index}.{module}.{kind}"] for kind in ("weight", "bias")]

        qkv = F.linear(F.layer_norm(tokens, (24,), *part("norm1"), 1e-6), *part("attn.qkv"))
        query, key, value = qkv.unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + F.linear(attended, *part("attn.proj"))
        if index in (3, 6, 9) and keep_rate < 1:
            scores[index] = patch_scores(query, key, 8**-0.5, SCORES[name], extra)
            chosen = top_patches(scores[index], num_kept(kept.shape[1], keep_rate))
            tokens = torch.cat([tokens[:, :extra], gather_tokens(tokens[:, extra:], chosen)], dim=1)
            kept = kept.gather(1, chosen)
        hidden = F.gelu(F.linear(F.layer_norm(tokens, (24,), *part("norm2"), 1e-6), *part("mlp.fc1")))
        tokens = tokens + F.linear(hidden, *part("mlp.fc2"))
        if loudest is not None and index == 2:
            intensity = patch_statistics(fbank, 16)[0]  # time after time; an AST has frequency after frequency
            if name == "ast":
                intensity = intensity.unflatten(1, (-1, 8)).mT.flatten(1)
            tokens = torch.cat([tokens[:, :extra], tokens[:, extra:][intensity > loudest][None]], dim=1)
    return tokens, scores, kept


def classify(golden: dict[str, torch.Tensor], name: str, tokens: torch.Tensor) -> torch.Tensor:
    """The published head on the tokens after the last block."""

    def part(module: str) -> list[torch.Tensor]:
        return [golden[f"sd.{name}.{module}.{kind}"] for kind in ("weight", "bias")]

    if name == "audiomae":
        return F.linear(F.layer_norm(tokens[:, 1:].mean(1), (24,), *part("fc_norm"), 1e-6), *part("head"))
    summary = F.layer_norm(tokens, (24,), *part("v.norm"), 1e-6)[:, :2].mean(1)
    return F.linear(F.layer_norm(summary, (24,), *part("mlp_head.0"), 1e-5), *part("mlp_head.1"))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("keep_rate", [0.9, 0.7, 0.5])
def test_scores_choices_and_tokens_are_the_published_ones(published, name, keep_rate):
    start = f"out.{name}.{keep_rate}"
    tokens, scores, kept = run_published(published, name, keep_rate)
    # From the second pruning on the published tokens stand in another order: compare as sets.
    torch.testing.assert_close(scores[3], published[f"{start}.score3"], rtol=0, atol=2e-6)
    for layer in (6, 9):
        expected = published[f"{start}.score{layer}"].sort().values
        torch.testing.assert_close(scores[layer].sort().values, expected, rtol=0, atol=2e-6)
    expected_kept, order = published[f"{start}.kept_patches"].sort()
    assert torch.equal(kept, expected_kept.to(kept))
    extra = published[f"{start}.tokens"].shape[1] - kept.shape[1]
    expected = gather_tokens(published[f"{start}.tokens"][:, extra:], order)
    torch.testing.assert_close(tokens[:, extra:], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(classify(published, name, tokens), published[f"{start}.logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_a_list_of_rates_and_a_threshold_give_the_published_logits(published, name):
    """A rate for every pruning overrides the model's own; a threshold keeps what is louder, and the grid's order."""
    tokens, _, _ = run_published(published, name, 0.8)
    torch.testing.assert_close(classify(published, name, tokens), published[f"out.{name}.list0.8.logits"],
                               rtol=0, atol=1e-5)  # fmt: skip
    tokens, _, _ = run_published(published, name, 1.0, loudest=-0.3)
    expected = published[f"out.{name}.retain_above_-0.3_after_block2.logits"]
    torch.testing.assert_close(classify(published, name, tokens), expected, rtol=0, atol=1e-5)


def test_statistics_of_patches_are_the_published_ones(published):
    mean, deviation = patch_statistics(published["in.fbank"], 16)
    torch.testing.assert_close(mean, published["out.patch_mean_time_major"], rtol=0, atol=1e-6)
    torch.testing.assert_close(deviation, published["out.patch_std_time_major"], rtol=0, atol=1e-6)


def test_keep_rate_falls_along_the_published_half_cosine(published):
    rates = [keep_rate_at(min(max((epoch - 30) / 20, 0.0), 1.0), 0.5) for epoch in range(60)]
    torch.testing.assert_close(
        torch.tensor(rates, dtype=torch.float64), published["out.schedule.as20k_0.5"].double(), rtol=0, atol=1e-12
    )


# EAT


def tiny(**fields) -> EatConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    return EatConfig(**sizes, window_frames=128, **fields)


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def make_eat():
    """Makes the same random EAT with other prunings."""

    def make(**fields) -> EatModel:
        torch.manual_seed(0)
        return EatModel(tiny(**fields)).eval()

    return make


def test_rate_one_is_the_unpruned_encoder_bit_by_bit(make_eat, windows):
    whole = make_eat(pruning_layers=[])(windows)
    output = make_eat(keep_rate=1.0)(windows)
    assert torch.equal(output.last_hidden_state, whole.last_hidden_state)
    assert output.kept_patches is None


@pytest.mark.parametrize("score", ["cls", "mean"])
def test_a_pruned_grid_holds_the_sequence_where_it_was_kept(make_eat, windows, score):
    grid = make_eat(keep_rate=0.7, pruning_score=score)(windows)
    sequence = make_eat(keep_rate=0.7, pruning_score=score, pruned_tokens="sequence")(windows)
    kept = sequence.kept_patches
    assert kept.shape == (3, 23)  # 64 -> 45 -> 32 -> 23
    assert torch.equal(kept, kept.sort(dim=1).values)
    assert torch.equal(grid.kept_patches, kept)
    assert grid.last_hidden_state.shape == (3, 65, 32)
    assert sequence.last_hidden_state.shape == (3, 24, 32)
    assert torch.equal(grid.last_hidden_state[:, 0], sequence.last_hidden_state[:, 0])
    assert torch.equal(gather_tokens(grid.last_hidden_state[:, 1:], kept), sequence.last_hidden_state[:, 1:])


def test_the_loudest_patches_stay_where_intensity_ranks(make_eat, windows):
    intensity = patch_statistics(windows, 16)[0]
    kept = make_eat(keep_rate=0.5, pruning_score="intensity")(windows).kept_patches
    assert torch.equal(kept, intensity.topk(8, dim=1).indices.sort(dim=1).values)
    some = torch.arange(0, 64, 2).expand(3, -1)
    kept = make_eat(keep_rate=0.5, pruning_score="intensity")(windows, kept_patches=some).kept_patches
    assert torch.equal(kept, intensity[:, ::2].topk(4, dim=1).indices.sort(dim=1).values)


def test_dropped_patches_come_out_as_they_were_when_dropped(make_eat, windows):
    pruned = make_eat(keep_rate=0.5, pruning_layers=[1])
    seen = {}
    pruned.layers[1].norm1.register_forward_hook(lambda module, inputs, output: seen.update(after=output))
    output = pruned(windows)
    dropped = torch.ones(3, 64, dtype=torch.bool).scatter(1, output.kept_patches, False)
    assert torch.equal(output.last_hidden_state[:, 1:][dropped], seen["after"][:, 1:][dropped])


@pytest.mark.parametrize("pruned_tokens", ["grid", "sequence"])
def test_the_whole_encoder_learns_with_pruning(make_eat, windows, pruned_tokens):
    model = make_eat(keep_rate=0.5, pruned_tokens=pruned_tokens).train()
    model.gradient_checkpointing_enable()
    model(windows).last_hidden_state.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_scores_do_not_depend_on_the_attention_implementation(make_eat, windows):
    sdpa, eager = make_eat(keep_rate=0.5), make_eat(keep_rate=0.5)
    eager.set_attn_implementation("eager")
    outputs = eager(windows, output_attentions=True)
    assert torch.equal(sdpa(windows).kept_patches, outputs.kept_patches)
    assert [weights.shape[-1] for weights in outputs.attentions] == [65, 65, 33, 17]


def test_pruning_that_cannot_be_is_refused():
    with pytest.raises(StrictDataclassClassValidationError, match=r"`keep_rate` is 0.0; expected a share above 0"):
        tiny(keep_rate=0.0)
    with pytest.raises(StrictDataclassClassValidationError, match=r"`pruning_layers` is \[3, 4\]; .* from 0 to 3"):
        tiny(pruning_layers=[3, 4])


def test_a_connector_of_the_grid_refuses_a_pruned_sequence():
    audio = tiny(keep_rate=0.5, pruned_tokens="sequence")
    with pytest.raises(StrictDataclassClassValidationError, match=r"'concat' needs the whole grid of 8 x 8 .* to 8:"):
        MacConfig(audio_config=audio)
    config = MacConfig(audio_config=audio, connector_type="time_major")
    assert config.audio_tokens_per_run == config.audio_tokens_per_window == 8


@pytest.mark.parametrize("fields", [{}, {"pruned_tokens": "sequence"}])
def test_a_captioner_reads_what_is_left(make_mac, make_inputs, fields):
    model = make_mac(connector_type="time_major")
    full = model.config.audio_tokens_per_window
    for name, value in {"keep_rate": 0.5, **fields}.items():
        setattr(model.config.audio_config, name, value)
    tokens = model.config.audio_tokens_per_window
    assert tokens == (full if not fields else 16)  # two prunings of 64 in two blocks
    inputs = make_inputs(2, 1, tokens=tokens)
    assert model.generate(**inputs).shape[0] == 2

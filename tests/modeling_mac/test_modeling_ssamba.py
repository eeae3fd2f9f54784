"""SSAMBA against the outputs of upstream's own code."""

from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file
from transformers import AutoModel

from modeling_mac import (
    MacForConditionalGeneration,
    SsambaConfig,
    SsambaForAudioClassification,
    SsambaModel,
    selective_scan,
)
from modeling_mac.conversion_ssamba_mac import convert_ssamba_state_dict, load_ssamba
from modeling_mac.modeling_ssamba import resize_positions, time_major
from modeling_mac.weight_files_mac import load_strictly


FIXTURE = Path(__file__).parents[1] / "fixtures" / "ssamba_tiny.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE)


def released(golden: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """The weights under upstream's names, `module.` in front."""
    prefix = f"sd.{kind}."
    return {name.removeprefix(prefix): tensor for name, tensor in golden.items() if name.startswith(prefix)}


def load(golden, kind: str, **changes) -> SsambaModel:
    config, weights = convert_ssamba_state_dict(released(golden, kind))
    config.update(changes)
    return load_strictly(SsambaModel, config, weights, kind)


def load_classifier(golden, encoder: str, **changes) -> SsambaForAudioClassification:
    """The fine-tuned head on this encoder."""
    head = {name: tensor for name, tensor in released(golden, "finetune").items() if "mlp_head" in name}
    config, weights = convert_ssamba_state_dict(released(golden, encoder) | head, with_head=True)
    config.update(changes)
    return load_strictly(SsambaForAudioClassification, config, weights, encoder)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, atol: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@torch.no_grad()
def test_embeddings_and_tokens(golden):
    model = load(golden, "pretrain")
    assert model.config.grid == (64, 8) and model.config.time_step_rank == 3
    embeddings, times = model.embeddings(golden["in.fbank"])
    assert_close(embeddings[:1], golden["out.s16_1024.embeddings"], 1e-6)
    outputs = model(golden["in.fbank"], output_hidden_states=True)
    assert_close(outputs.last_hidden_state, time_major(golden["out.s16_1024.tokens"], times), 2e-5)
    last = [golden[f"out.s16_1024.layer{layer}.{part}"] for layer, part in [(2, "hidden"), (2, "residual")]]
    back = [golden[f"out.s16_1024.layer3.{part}"].flip(1) for part in ("hidden", "residual")]
    assert_close(outputs.hidden_states[-1][:1], time_major(sum(last) + sum(back), times), 2e-5)


@torch.no_grad()
def test_layer_after_layer(golden):
    model = load(golden, "pretrain", paired_layers=False)
    tokens = model(golden["in.fbank"][:1]).last_hidden_state
    assert_close(tokens, time_major(golden["out.sequential.tokens"], 64), 3e-5)
    classifier = load_classifier(golden, "pretrain", paired_layers=False)
    assert_close(classifier(golden["in.fbank"]).logits, golden["out.sequential.logits_avgtok"], 3e-5)


@torch.no_grad()
def test_stride_10(golden):
    model = load(golden, "finetune")
    assert (model.config.stride, model.config.window_frames, model.config.grid) == (10, 512, (50, 12))
    tokens = model(golden["in.fbank"][:1, :512]).last_hidden_state
    assert_close(tokens, time_major(golden["out.s10_512.tokens"], 50), 2e-5)


@pytest.mark.parametrize(("pooling", "name"), [("mean", "avgtok"), ("cls", "cls")])
@torch.no_grad()
def test_logits(golden, pooling, name):
    fbank = golden["in.fbank"]
    pretrained = load_classifier(golden, "pretrain", pooling=pooling)
    assert_close(pretrained(fbank).logits, golden[f"out.s16_1024.logits_{name}"], 1e-5)
    fine_tuned = load_classifier(golden, "finetune", pooling=pooling)
    assert_close(fine_tuned(fbank[:, :512]).logits, golden[f"out.s10_512.logits_{name}"], 1e-5)


@pytest.mark.parametrize(("name", "grid"), [("s10_1024", (101, 12)), ("s16_1600", (100, 8)), ("s10_100", (9, 12))])
def test_positions_of_other_grids(golden, name, grid):
    positions = golden["sd.pretrain.module.v.pos_embed"]
    assert_close(resize_positions(positions, (64, 8), grid), golden[f"out.pos.{name}"], 1e-6)
    with pytest.raises(ValueError, match="8 frequency rows cannot serve 7"):
        resize_positions(positions, (64, 8), (64, 7))


@torch.no_grad()
def test_the_mixer_alone(golden):
    mixer = load(golden, "pretrain").layers[0].mixer
    assert_close(mixer(golden["in.mixer"]), golden["out.mixer.layer0"], 1e-5)


def test_upstreams_scan(golden):
    """And from the state after 20 steps on."""
    u, dt, B, C, z = (golden[f"in.scan.{name}"].mT for name in ("u", "delta", "B", "C", "z"))
    A, D, bias = (golden[f"in.scan.{name}"] for name in ("A", "D", "delta_bias"))
    y, state = selective_scan(u, dt, A, B, C, D=D, dt_bias=bias)
    assert_close(y * torch.nn.functional.silu(z), golden["out.scan.y"].mT, 5e-6)
    assert_close(state, golden["out.scan.last_state"], 5e-6)
    rest = (tensor[:, 20:] for tensor in (u, dt))
    between = golden["out.scan.state_at_20"]
    again, last = selective_scan(*rest, A, B[:, 20:], C[:, 20:], D=D, dt_bias=bias, initial_state=between)
    assert_close(again, y[:, 20:], 5e-6)
    assert_close(last, state, 5e-6)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_released_files_load_strictly(golden, kind, tmp_path):
    file = tmp_path / "ssamba.pth"
    weights = released(golden, kind)
    torch.save(weights, file)
    config, converted = load_ssamba(file)
    model = load_strictly(SsambaModel, config, converted, "it")
    model.save_pretrained(tmp_path / "ours")
    assert type(AutoModel.from_pretrained(tmp_path / "ours")) is SsambaModel
    again, same = load_ssamba(tmp_path / "ours")
    assert again.grid == config.grid and all(torch.equal(same[name], tensor) for name, tensor in converted.items())
    del weights["module.v.layers.1.mixer.A_b_log"]
    torch.save(weights | {"module.v.layers.0.mlp.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"missing: v\.layers\.1\.mixer\.A_b_log .*unexpected: v\.layers\.0\.mlp"):
        load_ssamba(file)


@pytest.mark.parametrize(
    ("width", "parameters"), [(192, 6_823_680), (384, 25_148_928), (768, 96_304_128)], ids=["tiny", "small", "base"]
)
def test_sizes(width, parameters):
    """Without the positions."""
    with torch.device("meta"):
        model = SsambaModel(SsambaConfig(hidden_size=width))
    counted = sum(weight.numel() for name, weight in model.named_parameters() if not name.endswith("positions"))
    assert counted == parameters


def test_new_weights_are_all_written(tmp_path):
    """Saved and loaded too, no memory is left as it was; training with dropped paths reaches every weight."""
    torch.manual_seed(0)
    model = SsambaModel(SsambaConfig(hidden_size=32, num_hidden_layers=4, window_frames=128, drop_path_rate=0.1))
    for name, weight in model.named_parameters():
        assert weight.isfinite().all() and weight.abs().max() < 10, name
    mixer = model.layers[0].mixer
    steps = torch.nn.functional.softplus(mixer.dt_proj_b.bias)
    assert 0.001 <= steps.min() < 0.01 < steps.max() <= 0.1
    assert torch.allclose(mixer.A_b_log.exp(), torch.arange(1.0, 17).expand(64, 16))
    features = torch.randn(8, 128, 128)
    model.train().gradient_checkpointing_enable()
    model(features).last_hidden_state.pow(3).mean().backward()
    assert all(weight.grad.any() for weight in model.parameters())


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"num_hidden_layers": 3}, "must be even"), ({"pooling": "max"}, "'max'"), ({"stride": 17}, r"`stride` \(17\)")],
)
def test_bad_configurations(fields, named):
    with pytest.raises(StrictDataclassClassValidationError, match=named):
        SsambaConfig(**fields)


@pytest.mark.parametrize("shape", [(1, 128, 64), (128, 128), (1, 8, 128)], ids=str)
def test_bad_shapes(shape):
    model = SsambaModel(SsambaConfig(hidden_size=32, num_hidden_layers=2, window_frames=128))
    with pytest.raises(ValueError, match="`input_features` has shape"):
        model(torch.zeros(shape))


@torch.no_grad()
def test_it_is_a_tower_that_is_told_by_its_weights(golden, mamba2_folder, tmp_path):
    """From the authors' file to a saved MAC, with the tokens that the encoder gives alone."""
    torch.save(released(golden, "pretrain"), tmp_path / "ssamba.pth")
    model = MacForConditionalGeneration.from_towers(tmp_path / "ssamba.pth", mamba2_folder).eval()
    tower = model.model.audio_tower
    assert isinstance(tower, SsambaModel) and model.config.audio_config.model_type == "mac_ssamba"
    features = model.get_audio_features(golden["in.fbank"], return_dict=True)
    assert_close(features.last_hidden_state, load(golden, "pretrain")(golden["in.fbank"]).last_hidden_state, 0)
    assert features.pooler_output.shape[:2] == (len(golden["in.fbank"]), model.config.audio_tokens_per_window)
    model.save_pretrained(tmp_path / "mac")
    again = MacForConditionalGeneration.from_pretrained(tmp_path / "mac").eval()
    assert_close(
        again.get_audio_features(golden["in.fbank"], return_dict=True).pooler_output, features.pooler_output, 0
    )

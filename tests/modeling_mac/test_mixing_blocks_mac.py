"""The blocks that mix a grid's tokens, against what the code of ML-Mamba and MambaOut gives for the same weights."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from transformers import Mamba2Config

from modeling_mac import EatConfig, MacConfig
from modeling_mac.connector_mac import CONNECTORS, ScanConnector
from modeling_mac.linear_mac import project
from modeling_mac.mixing_blocks_mac import GatedCnnBlock, merge_ways, scan_config, scan_orders
from modeling_mac.modeling_mamba2_mac import Mamba2MacMixer


FIXTURES = Path(__file__).parents[1] / "fixtures"
GRID = (6, 4)
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


def without_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def small_config(**fields) -> MacConfig:
    """The sizes of the golden connector: tokens of 24, mixed at 32, on a grid of 6 x 4."""
    fields = {"connector_type": "scan"} | fields
    return MacConfig(
        audio_config=EatConfig(hidden_size=24, num_attention_heads=1, window_frames=96, num_mel_bins=64),
        text_config=Mamba2Config(
            vocab_size=64, hidden_size=32, num_heads=4, head_dim=16, state_size=16, n_groups=1, num_hidden_layers=1
        ),
        audio_token_id=1,
        **fields,
    )


@pytest.fixture(scope="module")
def scan_golden() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "mlmamba_msc_tiny.safetensors")


@pytest.fixture(scope="module")
def connector(scan_golden) -> ScanConnector:
    """The connector with the golden weights; only the ending, which is ours, is new."""
    connector = ScanConnector(small_config())
    weights = {"linear_in." + name: tensor for name, tensor in without_prefix(scan_golden, "sd.mlp.0.").items()}
    for name, tensor in without_prefix(scan_golden, "sd.bidirectional_mamba.").items():
        name = re.sub(r"^layers", "blocks", name).replace("norm_f", "norm").replace(".mlp.", ".")
        name = re.sub(r"mixer\.(conv1d|A_log|D|dt_bias)_b", r"mixer.ways.0.\1", name)
        weights[name] = tensor
    missing, unexpected = connector.load_state_dict(weights, strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {"linear_1", "linear_2"}
    return connector.eval()


@torch.no_grad()
def test_scan_is_ml_mambas_at_every_stage(connector, scan_golden):
    tokens = torch.nn.functional.gelu(connector.linear_in(scan_golden["in.grid"]))
    torch.testing.assert_close(tokens, scan_golden["out.mlp"], **CLOSE)
    for index, block in enumerate(connector.blocks):
        mixed = block.mixer(tokens)
        torch.testing.assert_close(mixed, scan_golden[f"out.layer{index}.mixer"], **CLOSE)
        torch.testing.assert_close(tokens + mixed, scan_golden[f"out.layer{index}.after_mixer"], **CLOSE)
        tokens = block(tokens)
        torch.testing.assert_close(tokens, scan_golden[f"out.layer{index}"], **CLOSE)
    torch.testing.assert_close(connector.norm(tokens), scan_golden["out.scan"], **CLOSE)
    arranged = connector.arrange(scan_golden["in.grid"])
    torch.testing.assert_close(arranged, scan_golden["out.scan"].reshape(2, 6, 4 * 32), **CLOSE)


@torch.no_grad()
def test_one_way_of_it_is_the_backbones_mixer(scan_golden):
    mixer = Mamba2MacMixer(scan_config(small_config()), layer_idx=0)
    mixer.load_state_dict(without_prefix(scan_golden, "plain.sd."))
    torch.testing.assert_close(mixer(scan_golden["out.mlp"]), scan_golden["plain.out"], **CLOSE)


@torch.no_grad()
def test_both_ways_are_there_and_neither_is_the_whole(connector, scan_golden):
    mixer, expected = connector.blocks[0].mixer, scan_golden["out.layer0.mixer"]
    forward, backward = mixer.read_ways(project(mixer.in_proj, scan_golden["out.mlp"]))
    torch.testing.assert_close(forward, scan_golden["out.layer0.forward_direction"], **CLOSE)
    torch.testing.assert_close(backward, scan_golden["out.layer0.backward_direction"], **CLOSE)
    assert (mixer.out_proj(forward) - expected).abs().max() > 1  # what is left where the backward way is dropped


def test_orders_and_merges_are_those_of_the_two_scans():
    golden = load_file(FIXTURES / "scan_orders.safetensors")
    names = ["time_major", "time_major_reversed", "frequency_major", "frequency_major_reversed"]
    orders, outputs = scan_orders(*GRID, 4), []
    for name, order in zip(names, orders, strict=True):
        assert order.tolist() == golden[f"order.{name}"].tolist()
        outputs.append(golden["in.grid"][:, order].cumsum(1)[:, order.argsort()])
        torch.testing.assert_close(outputs[-1], golden[f"out.cumsum.{name}"])
    torch.testing.assert_close(merge_ways(outputs[:2]), golden["out.cumsum.bidirectional_mean"])
    torch.testing.assert_close(merge_ways(outputs), golden["out.cumsum.cross_sum"])


@torch.no_grad()
def test_gated_cnn_is_mambaouts():
    golden = load_file(FIXTURES / "mambaout_tiny.safetensors")
    block = GatedCnnBlock(24, GRID)
    block.load_state_dict(without_prefix(golden, "sd.block_default."))
    torch.testing.assert_close(block(golden["in.grid"]), golden["out.block_default"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"connector_scan": "cross"}, {"connector_type": "gated_cnn"}])
def test_every_token_hears_of_every_other_direction_and_all_weights_learn(fields):
    """A change at the middle of the grid reaches tokens before and after it, in time and in frequency."""
    torch.manual_seed(0)
    config = small_config(**fields)
    connector = CONNECTORS[config.connector_type](config)
    grid = torch.randn(1, 24, 24)
    changed = grid.clone()
    changed[0, 3 * 4 + 1] += 1
    moved = (connector.arrange(changed) - connector.arrange(grid)).abs().unflatten(2, (4, -1)).amax(-1)[0]
    assert (moved > 0).all()  # (time, freq)
    connector(grid).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in connector.parameters())


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(StrictDataclassError, match=r"(?s)connector_width.*heads of 16"):
        small_config(connector_width=20)
    with pytest.raises(StrictDataclassError, match="connector_layers"):
        small_config(connector_layers=0)
    with pytest.raises(StrictDataclassError, match="connector_scan"):
        small_config(connector_scan="diagonal")


def test_the_two_connectors_have_the_sizes_that_the_papers_give():
    with torch.device("meta"):
        text = Mamba2Config(hidden_size=768, num_heads=24, head_dim=64, state_size=128, n_groups=1)
        config = MacConfig(text_config=text, connector_type="scan", audio_token_id=1)
        scan = CONNECTORS["scan"](config).blocks[0]
        gated = CONNECTORS["gated_cnn"](config).blocks[0]
    assert sum(weight.numel() for weight in scan.parameters()) == 5_546_896
    assert sum(weight.numel() for weight in gated.parameters()) == 4_763_392

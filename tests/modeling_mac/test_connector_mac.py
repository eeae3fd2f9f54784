"""Connectors on a grid that says where each value came from: token (t, f) holds 100 t + f."""

import pytest
import torch
from transformers import Mamba2Config

from modeling_mac import EatConfig, MacConfig
from modeling_mac.connector_mac import CONNECTORS


ROWS, COLUMNS, DIM, WIDTH = 64, 8, 4, 6


def make(connector_type: str) -> tuple[MacConfig, torch.nn.Module]:
    config = MacConfig(
        audio_config=EatConfig(hidden_size=DIM, num_attention_heads=1),
        text_config=Mamba2Config(vocab_size=64, hidden_size=WIDTH, num_heads=2, head_dim=6),
        connector_type=connector_type,
        connector_hidden_size=5,
        audio_token_id=1,
    )
    return config, CONNECTORS[connector_type](config)


def value(t: float, f: float) -> float:
    return 100 * t + f


@pytest.fixture
def grid() -> torch.Tensor:
    """(2 windows, 512, 4), the second window negative."""
    time, frequency = torch.meshgrid(torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij")
    tokens = value(time, frequency).float().flatten()[:, None].expand(-1, DIM)
    return torch.stack([tokens, -tokens])


def test_concat_puts_the_frequencies_of_a_time_step_side_by_side(grid):
    arranged = make("concat")[1].arrange(grid)
    assert arranged.shape == (2, ROWS, COLUMNS * DIM)
    for t in range(ROWS):
        expected = [value(t, f) for f in range(COLUMNS) for _ in range(DIM)]
        assert arranged[0, t].tolist() == expected
        assert arranged[1, t].tolist() == [-number for number in expected]


def test_time_major_keeps_time_steps_together(grid):
    arranged = make("time_major")[1].arrange(grid)
    expected = [value(t, f) for t in range(ROWS) for f in range(COLUMNS)]
    assert arranged[0, :, 0].tolist() == expected
    assert arranged[1, :, DIM - 1].tolist() == [-number for number in expected]


def test_frequency_major_keeps_bands_together(grid):
    arranged = make("frequency_major")[1].arrange(grid)
    expected = [value(t, f) for f in range(COLUMNS) for t in range(ROWS)]
    assert arranged[0, :, 0].tolist() == expected
    assert arranged[1, :, DIM - 1].tolist() == [-number for number in expected]


def test_mean_pool_averages_frequencies_and_pairs_of_time_steps(grid):
    arranged = make("mean_pool")[1].arrange(grid)
    expected = [value(2 * pair + 0.5, 3.5) for pair in range(ROWS // 2)]
    assert arranged[0, :, 0].tolist() == expected
    assert arranged[1, :, DIM - 1].tolist() == [-number for number in expected]


@pytest.mark.parametrize("connector_type", list(CONNECTORS))
def test_output_is_as_long_as_the_config_says(connector_type, grid):
    config, connector = make(connector_type)
    assert connector(grid).shape == (2, config.audio_tokens_per_window, WIDTH)


def test_runs_of_the_long_connectors_are_rows_and_bands(grid):
    """The processor writes a separator after each run: what a run holds must belong together."""
    config, connector = make("time_major")
    for t, run in enumerate(connector.arrange(grid)[0, :, 0].split(config.audio_tokens_per_run)):
        assert set((run // 100).tolist()) == {t}
    config, connector = make("frequency_major")
    for f, run in enumerate(connector.arrange(grid)[0, :, 0].split(config.audio_tokens_per_run)):
        assert set((run % 100).tolist()) == {f}


@pytest.mark.parametrize("connector_type", ["concat", "time_major", "frequency_major"])
def test_mlp_has_two_layers_and_the_configured_width(connector_type, grid):
    _, connector = make(connector_type)
    assert connector.linear_1.out_features == connector.linear_2.in_features == 5
    arranged = connector.arrange(grid)
    expected = connector.linear_2(torch.nn.functional.gelu(connector.linear_1(arranged)))
    torch.testing.assert_close(connector(grid), expected)


def test_mean_pool_normalises_before_its_one_layer():
    _, connector = make("mean_pool")
    tokens = 1000 * torch.randn(2, ROWS * COLUMNS, DIM)  # far above LayerNorm's epsilon
    torch.testing.assert_close(connector(tokens), connector(5 * tokens + 3000))
    assert not list(connector.layer_norm.parameters())

"""
Connectors: a window's grid of audio tokens -> the sequence of embeddings that the language model reads.

`CONNECTORS` is the one table of their kinds: what a kind is called, which class it is, and by that class's `layout`
how many tokens stand for a window and where separators stand between them.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn


if TYPE_CHECKING:  # the configuration reads the table below, so that the two cannot import each other
    from .configuration_mac import MacConfig


class Layout(NamedTuple):
    """
    How a connector's tokens stand in the text.

    Args:
        runs: Runs of `<|audio|>` in a window; the processor writes a separator between two of them.
        tokens: Tokens of a run.
    """

    runs: int
    tokens: int


class Connector(nn.Module):
    """
    Arranges the grid, then projects every token to the language model's width by a two-layer MLP (paper, section 2).

    Subclasses say how the grid is arranged. The separators of the two long connectors are text that the processor
    writes between the runs of `<|audio|>`, so a connector needs no embeddings.
    """

    def __init__(self, config: "MacConfig", token_size: int):
        super().__init__()
        self.rows, self.columns = config.audio_config.grid
        width = config.text_config.hidden_size
        inner = config.connector_hidden_size or width
        self.linear_1 = nn.Linear(token_size, inner)
        self.linear_2 = nn.Linear(inner, width)

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        """The layout for the grid of the configuration's tower."""
        raise NotImplementedError

    @staticmethod
    def time_steps(config: "MacConfig") -> int:
        """Time steps that one token is made of; the grid must be a multiple of it."""
        return 1

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        """Grid tokens (windows, time * freq, dim), time-major -> (windows, n, token_size)."""
        raise NotImplementedError

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(windows, time * freq, dim) -> (windows, config.audio_tokens_per_window, language model's width)."""
        return self.linear_2(nn.functional.gelu(self.linear_1(self.arrange(tokens))))


class ConcatConnector(Connector):
    """The 8 frequency tokens of a time step side by side: 64 tokens of 8 * dim. The paper's best."""

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        return Layout(1, config.audio_config.grid[0])

    def __init__(self, config: "MacConfig"):
        super().__init__(config, token_size=config.audio_config.hidden_size * config.audio_config.grid[1])

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.reshape(tokens.shape[0], self.rows, -1)


class StackConnector(Connector):
    """`stack_size` time steps side by side, each with all its frequencies: fewer, longer tokens of a long grid."""

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        return Layout(1, config.audio_config.grid[0] // config.stack_size)

    @staticmethod
    def time_steps(config: "MacConfig") -> int:
        return config.stack_size

    def __init__(self, config: "MacConfig"):
        self.size = config.stack_size
        super().__init__(config, token_size=config.audio_config.hidden_size * config.audio_config.grid[1] * self.size)

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.reshape(tokens.shape[0], self.rows // self.size, -1)


class TimeMajorConnector(Connector):
    """All tokens, time step after time step, low frequencies first."""

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        rows, columns = config.audio_config.grid
        kept = config.audio_config.num_tokens
        return Layout(rows, columns) if kept == rows * columns else Layout(1, kept)  # pruned steps differ in length

    def __init__(self, config: "MacConfig"):
        super().__init__(config, token_size=config.audio_config.hidden_size)

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens


class FrequencyMajorConnector(Connector):
    """All tokens, frequency band after frequency band, early times first."""

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        rows, columns = config.audio_config.grid
        return Layout(columns, rows)

    def __init__(self, config: "MacConfig"):
        super().__init__(config, token_size=config.audio_config.hidden_size)

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        grid = tokens.unflatten(1, (self.rows, self.columns))
        return grid.transpose(1, 2).flatten(1, 2)


class MeanPoolConnector(nn.Module):
    """LTU's (arXiv 2305.10790): mean over frequency and over pairs of time steps, LayerNorm, one linear layer."""

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        return Layout(1, config.audio_config.grid[0] // 2)

    @staticmethod
    def time_steps(config: "MacConfig") -> int:
        return 2

    def __init__(self, config: "MacConfig"):
        super().__init__()
        self.rows, self.columns = config.audio_config.grid
        self.layer_norm = nn.LayerNorm(config.audio_config.hidden_size, elementwise_affine=False)
        self.linear = nn.Linear(config.audio_config.hidden_size, config.text_config.hidden_size)

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        pairs = tokens.unflatten(1, (self.rows // 2, 2 * self.columns))
        return pairs.mean(dim=2)  # (windows, time / 2, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(windows, time * freq, dim) -> (windows, time / 2, language model's width)."""
        return self.linear(self.layer_norm(self.arrange(tokens)))


CONNECTORS: dict[str, type[Any]] = {
    "concat": ConcatConnector,
    "time_major": TimeMajorConnector,
    "frequency_major": FrequencyMajorConnector,
    "mean_pool": MeanPoolConnector,
    "stack": StackConnector,
}

__all__ = ["CONNECTORS"]

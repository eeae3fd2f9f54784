"""
Connectors turn a window's grid of audio tokens into the sequence of embeddings that the language model reads.

`CONNECTORS` is the one table of their kinds. It gives the class of each kind by name, and the class says in `layout`
how many tokens stand for a window and where separators stand between them.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from .mixing_blocks_mac import GatedCnnBlock, ScanBlock


if TYPE_CHECKING:  # the configuration reads the table below, so that the two cannot import each other
    from .configuration_mac import MacConfig


class Layout(NamedTuple):
    """
    How the tokens of a connector stand in the text.

    Args:
        runs: Number of runs of `<|audio|>` in a window; the processor writes a separator between two runs.
        tokens: Number of tokens in a run.
    """

    runs: int
    tokens: int


class Connector(nn.Module):
    """
    Arrange the grid, then project every token to the language model's width by a two-layer MLP (paper, section 2).

    Subclasses say how the grid is arranged. The two long connectors need separators, but these are text that the
    processor writes between the runs of `<|audio|>`, so a connector has no embeddings of its own.

    Args:
        config: Configuration of the whole model.
        token_size: Width of the arranged tokens, before the MLP.
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
        """Return the layout that this connector gives to the grid of the configuration's audio tower."""
        raise NotImplementedError

    @staticmethod
    def time_steps(config: "MacConfig") -> int:
        """Return how many time steps one token is made of; those of the grid must be a multiple of it."""
        return 1

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        """Arrange time-major grid tokens, (windows, time * freq, dim), as (windows, n, token_size)."""
        raise NotImplementedError

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (windows, time * freq, dim) to (windows, config.audio_tokens_per_window, language model's width)."""
        return self.linear_2(nn.functional.gelu(self.linear_1(self.arrange(tokens))))


class ConcatConnector(Connector):
    """
    Put the frequency tokens of a time step side by side; this is the best connector of the paper.

    The grid of EAT, 64 time steps of 8 frequencies, becomes 64 tokens of width 8 * dim.
    """

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        return Layout(1, config.audio_config.grid[0])

    def __init__(self, config: "MacConfig"):
        super().__init__(config, token_size=config.audio_config.hidden_size * config.audio_config.grid[1])

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.reshape(tokens.shape[0], self.rows, -1)  # (windows, time, freq * dim)


class StackConnector(Connector):
    """
    Put `stack_size` time steps side by side, each with all its frequencies.

    A long grid, such as the 1500 time steps of Whisper, becomes fewer and wider tokens.
    """

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
        return tokens.reshape(tokens.shape[0], self.rows // self.size, -1)  # (windows, time / size, size * freq * dim)


class TimeMajorConnector(Connector):
    """Read all tokens of the grid, time step after time step, the low frequencies of each first."""

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        rows, columns = config.audio_config.grid
        kept = config.audio_config.num_tokens
        # After pruning, time steps hold different numbers of tokens: separators between them would mark nothing.
        return Layout(rows, columns) if kept == rows * columns else Layout(1, kept)

    def __init__(self, config: "MacConfig"):
        super().__init__(config, token_size=config.audio_config.hidden_size)

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens  # (windows, time * freq, dim), as the tower gives them


class FrequencyMajorConnector(Connector):
    """Read all tokens of the grid, frequency band after frequency band, the early times of each first."""

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        rows, columns = config.audio_config.grid
        return Layout(columns, rows)

    def __init__(self, config: "MacConfig"):
        super().__init__(config, token_size=config.audio_config.hidden_size)

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        grid = tokens.unflatten(1, (self.rows, self.columns))  # (windows, time, freq, dim)
        return grid.transpose(1, 2).flatten(1, 2)  # (windows, freq * time, dim)


class MeanPoolConnector(nn.Module):
    """
    The connector of LTU (arXiv 2305.10790).

    It takes the mean over all frequencies and over pairs of time steps, then applies a LayerNorm without weights and
    one linear layer.
    """

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
        pairs = tokens.unflatten(1, (self.rows // 2, 2 * self.columns))  # (windows, time / 2, 2 * freq, dim)
        return pairs.mean(dim=2)  # (windows, time / 2, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (windows, time * freq, dim) to (windows, time / 2, language model's width)."""
        return self.linear(self.layer_norm(self.arrange(tokens)))


class MixingConnector(Connector):
    """
    Narrow or widen the grid's tokens, mix them with each other, then put those of a time step side by side.

    It ends as `ConcatConnector` does, so that the two are compared at equal length. A window that is padded at its end
    is read to its end: the padding is silence to a connector, as it is to the encoder.
    """

    @staticmethod
    def layout(config: "MacConfig") -> Layout:
        return ConcatConnector.layout(config)

    def __init__(self, config: "MacConfig"):
        width = config.mixing_width
        super().__init__(config, token_size=width * config.audio_config.grid[1])
        self.linear_in = nn.Linear(config.audio_config.hidden_size, width)
        self.blocks = nn.ModuleList(self.block(config) for _ in range(config.connector_layers))
        self.norm = nn.LayerNorm(width, eps=1e-5)

    @staticmethod
    def block(config: "MacConfig") -> nn.Module:
        """Make one block, (windows, time * freq, width) -> the same shape."""
        raise NotImplementedError

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        mixed = nn.functional.gelu(self.linear_in(tokens))  # (windows, time * freq, width)
        for block in self.blocks:
            mixed = block(mixed)
        return self.norm(mixed).reshape(tokens.shape[0], self.rows, -1)  # (windows, time, freq * width)


class ScanConnector(MixingConnector):
    """The connector of ML-Mamba (arXiv 2407.19832): Mamba-2 over the grid in several orders, ending as `concat`."""

    @staticmethod
    def block(config: "MacConfig") -> nn.Module:
        return ScanBlock(config)


class GatedCnnConnector(MixingConnector):
    """The same with MambaOut's block (arXiv 2405.07992): a 7 x 7 depthwise convolution in place of the state space."""

    @staticmethod
    def block(config: "MacConfig") -> nn.Module:
        return GatedCnnBlock(config.mixing_width, config.audio_config.grid)


CONNECTORS: dict[str, type[Any]] = {
    "concat": ConcatConnector,
    "time_major": TimeMajorConnector,
    "frequency_major": FrequencyMajorConnector,
    "mean_pool": MeanPoolConnector,
    "stack": StackConnector,
    "scan": ScanConnector,
    "gated_cnn": GatedCnnConnector,
}

__all__ = ["CONNECTORS"]

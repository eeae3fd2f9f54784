"""
Blocks with which a connector mixes the tokens of a window's grid before it lays them side by side.

`ScanBlock` is that of ML-Mamba (arXiv 2407.19832), a Mamba-2 mixer that reads the grid in several orders, followed by
a SwiGLU. `GatedCnnBlock` is that of MambaOut (arXiv 2405.07992), the block of Mamba without its state space. Both give
tokens in the order in which they came, time-major: token `t * columns + f`.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import initialization as init
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config

from .linear_mac import project
from .modeling_mamba2_mac import Mamba2MacMixer


if TYPE_CHECKING:  # the configuration reads the table of connectors, which reads this file
    from .configuration_mac import MacConfig


# Number of ways in which a mixer reads the grid, by `connector_scan`.
SCANS = {"bidirectional": 2, "cross": 4}


def scan_orders(rows: int, columns: int, ways: int, device: torch.device | None = None) -> list[torch.Tensor]:
    """
    List the orders in which a grid is read, each as the time-major places of its tokens, (rows * columns,).

    Two ways are time-major and its reverse; four add frequency-major and its reverse (VMamba's cross scan).
    """
    time_major = torch.arange(rows * columns, device=device)
    frequency_major = time_major.view(rows, columns).t().flatten()
    return [time_major, time_major.flip(0), frequency_major, frequency_major.flip(0)][:ways]


def merge_ways(outputs: list[torch.Tensor]) -> torch.Tensor:
    """
    Merge what two or four ways gave, each (..., tokens, width) in time-major order, as their sources do.

    ML-Mamba takes the mean of two ways, VMamba's cross scan the sum of four.
    """
    total = torch.stack(outputs).sum(0)
    return total / 2 if len(outputs) == 2 else total


def scan_config(config: "MacConfig") -> Mamba2Config:
    """
    Describe the mixers of the scan connector: those of the language model where it is a Mamba-2, else Mamba-2's usual.

    Raises:
        ValueError: The connector's width does not divide into heads.
    """
    text, width = config.text_config, config.mixing_width
    own = text if text.model_type == "mamba2" else Mamba2Config()
    if own.expand * width % own.head_dim:
        raise ValueError(
            f"`connector_width` is {width}: {own.expand} times as many channels do not divide into heads of "
            f"{own.head_dim}, those of the language model."
        )
    return Mamba2Config(
        hidden_size=width,
        num_hidden_layers=1,
        num_heads=int(own.expand * width) // own.head_dim,
        head_dim=own.head_dim,
        state_size=own.state_size,
        conv_kernel=own.conv_kernel,
        expand=own.expand,
        n_groups=1,
        layer_norm_epsilon=1e-5,
    )


class Way(nn.Module):
    """The weights that a further way of reading has of its own: convolution, decays, steps and skip."""

    def __init__(self, mixer: Mamba2MacMixer):
        super().__init__()
        conv = mixer.conv1d
        self.conv1d = nn.Conv1d(
            conv.in_channels, conv.out_channels, conv.kernel_size[0], groups=conv.groups, bias=conv.bias is not None
        )
        for name in ("A_log", "D", "dt_bias"):
            setattr(self, name, nn.Parameter(getattr(mixer, name).detach().clone()))


class ScanMixer(Mamba2MacMixer):
    """
    The mixer of the backbone, which reads the grid in two or four orders.

    Projections and gated norm serve all ways; a token's gate goes with it through every order.

    Args:
        config: Configuration of the mixer, of `scan_config`.
        grid: Tokens along (time, frequency).
        ways: Number of orders, 2 or 4.
    """

    def __init__(self, config: Mamba2Config, grid: tuple[int, int], ways: int):
        super().__init__(config, layer_idx=0)
        self.grid, self.number = grid, ways
        self.ways = nn.ModuleList(Way(self) for _ in range(ways - 1))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Mix (windows, tokens, width) -> the same shape; there is no cache, since it reads backwards, too."""
        read = self.read_ways(project(self.in_proj, hidden_states))
        return project(self.out_proj, merge_ways(read).to(hidden_states.dtype))

    def read_ways(self, projected: torch.Tensor) -> list[torch.Tensor]:
        """Read (windows, tokens, rows of in_proj) in every order -> (windows, tokens, channels) each, time-major."""
        orders = scan_orders(*self.grid, self.number, projected.device)
        return [
            self.read(projected[:, order], way=way)[:, order.argsort()]
            for order, way in zip(orders, (self, *self.ways), strict=True)
        ]

    @torch.no_grad()
    def init_weights(self) -> None:
        """Give new weights; further ways start as copies of the first, each with a convolution of its own."""
        self.init_mamba2_weights()
        for way in (self, *self.ways):
            init.kaiming_uniform_(way.conv1d.weight, a=math.sqrt(5))
            if way.conv1d.bias is not None:
                init.zeros_(way.conv1d.bias)
            for name in ("A_log", "D", "dt_bias"):
                if way is not self:
                    init.copy_(getattr(way, name), getattr(self, name))
        init.kaiming_uniform_(self.in_proj.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(2 * self.out_proj.in_features)  # torch's own over the root of two, for the residual
        init.uniform_(self.out_proj.weight, -bound, bound)
        init.ones_(self.norm.weight)


class ScanBlock(nn.Module):
    """
    ML-Mamba's block: a mixer without a norm before it, then a SwiGLU as wide as the tokens, each with its residual.

    Args:
        config: Configuration of the whole model.
    """

    def __init__(self, config: "MacConfig"):
        super().__init__()
        width = config.mixing_width
        self.mixer = ScanMixer(scan_config(config), config.audio_config.grid, SCANS[config.connector_scan])
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.w1, self.w2, self.w3 = (nn.Linear(width, width) for _ in range(3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mix (windows, tokens, width) -> the same shape."""
        tokens = tokens + self.mixer(tokens)
        normed = self.norm(tokens)
        return tokens + self.w3(nn.functional.silu(self.w1(normed)) * self.w2(normed))


class GatedCnnBlock(nn.Module):
    """
    MambaOut's block: a gate and a depthwise convolution over (time, frequency), with a residual.

    As in every published MambaOut, the last `width` of 8/3 `width` hidden channels are convolved; the others pass.

    Args:
        width: Width of the tokens.
        grid: Tokens along (time, frequency).
    """

    def __init__(self, width: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        hidden = int(8 / 3 * width)
        self.split = [hidden, hidden - width, width]
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.conv = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mix (windows, time * freq, width) -> the same shape."""
        gate, passed, convolved = self.fc1(self.norm(tokens)).split(self.split, dim=-1)
        image = convolved.mT.unflatten(-1, self.grid)  # (windows, channels, time, freq)
        convolved = self.conv(image).flatten(2).mT
        return tokens + self.fc2(nn.functional.gelu(gate) * torch.cat([passed, convolved], dim=-1))


__all__ = ["SCANS", "GatedCnnBlock", "ScanBlock", "ScanMixer", "merge_ways", "scan_config", "scan_orders"]

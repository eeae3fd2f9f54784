"""
SSAMBA (arXiv 2405.11831): an audio encoder of bidirectional Mamba-1 blocks, which can take the place of EAT.

The tokens of a window are read frequency-major, as upstream does it, and are returned in EAT's order, so that
connectors need not know which tower made them. Upstream's blocks stand in pairs. Both blocks of a pair read the same
input, one forwards and one backwards, and the sum of both residuals goes on. The running sum therefore doubles with
every pair; this is kept, since the weights were trained with it.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import can_return_tuple

from .causal_conv_mac import causal_conv
from .configuration_mac import SsambaConfig
from .linear_mac import as_weight
from .selective_scan_mac import selective_scan
from .ssd_mac import no_autocast


def resize_positions(positions: torch.Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> torch.Tensor:
    """
    Fit the positions of one grid to another by upstream's rule.

    Where fewer times are wanted, the middle of the time axis is taken. All else is interpolated bilinearly.

    Args:
        positions: Learned positions, (1, 1 + frequencies * times, dim), the summary token first, then frequency-major.
        grid: Size of the grid that `positions` has, (times, frequencies).
        wanted: Size of the grid to fit, (times, frequencies).

    Raises:
        ValueError: Fewer frequencies are wanted, for which there is no rule.
    """
    if grid == wanted:
        return positions
    (times, frequencies), (wanted_times, wanted_frequencies) = grid, wanted
    if wanted_frequencies < frequencies:
        raise ValueError(f"SSAMBA's positions of {frequencies} frequency rows cannot serve {wanted_frequencies}.")
    summary, table = positions[:, :1], positions[:, 1:]
    table = table.mT.unflatten(2, (frequencies, times))  # (1, dim, frequencies, times)
    if wanted_times < times:
        start = times // 2 - wanted_times // 2
        table = table[..., start : start + wanted_times]
    else:
        table = nn.functional.interpolate(table, (frequencies, wanted_times), mode="bilinear")
    table = nn.functional.interpolate(table, (wanted_frequencies, wanted_times), mode="bilinear")
    return torch.cat([summary, table.flatten(2).mT], dim=1)


def time_major(tokens: torch.Tensor, times: int) -> torch.Tensor:
    """
    Reorder frequency-major tokens, (windows, 1 + frequencies * times, dim).

    Afterwards the token of time t and frequency f stands at `1 + t * frequencies + f`.
    """
    patches = tokens[:, 1:].unflatten(1, (-1, times)).transpose(1, 2).flatten(1, 2)
    return torch.cat([tokens[:, :1], patches], dim=1)


class SsambaEmbeddings(nn.Module):
    """Cut a window into patches, put a summary token in front and add learned positions."""

    def __init__(self, config: SsambaConfig):
        super().__init__()
        self.config = config
        times, frequencies = config.grid
        self.patch_embedding = nn.Conv2d(1, config.hidden_size, config.patch_size, stride=config.stride)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.positions = nn.Parameter(torch.empty(1, 1 + frequencies * times, config.hidden_size))

    def forward(
        self,
        input_features: torch.Tensor,
        masked_patches: torch.Tensor | None = None,
        mask_embed: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, int]:
        """Return frequency-major tokens, (windows, 1 + frequencies * times, dim), and the number of times."""
        self.check_shape(input_features)
        patches = self.patch_embedding(input_features.mT.unsqueeze(1))  # (windows, dim, frequencies, times)
        frequencies, times = patches.shape[2:]
        tokens = patches.flatten(2).mT  # (windows, frequencies * times, dim)
        if masked_patches is not None and mask_embed is not None:
            index = masked_patches.unsqueeze(-1).expand(-1, -1, tokens.shape[2])
            tokens = tokens.scatter(1, index, mask_embed.to(tokens.dtype).expand(index.shape))
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + resize_positions(self.positions, self.config.grid, (times, frequencies)), times

    def check_shape(self, input_features: torch.Tensor) -> None:
        """Refuse anything but (windows, frames, mel bins) with at least one patch."""
        shape, config = tuple(input_features.shape), self.config
        if len(shape) != 3 or shape[2] != config.num_mel_bins or shape[1] < config.patch_size:
            raise ValueError(
                f"`input_features` has shape {shape}; expected (windows, frames, {config.num_mel_bins}) with at least "
                f"{config.patch_size} frames."
            )


class SsambaMixer(nn.Module):
    """
    Mamba-1 in both directions of the sequence.

    `in_proj` and `out_proj` are shared; every weight between them exists twice, with `_b` for the way backwards.
    """

    def __init__(self, config: SsambaConfig):
        super().__init__()
        self.time_step_rank, self.state_size = config.time_step_rank, config.state_size
        inner, kernel = config.expand * config.hidden_size, config.conv_kernel
        self.in_proj = nn.Linear(config.hidden_size, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=False)
        selection = self.time_step_rank + 2 * self.state_size
        self.conv1d, self.conv1d_b = (
            nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1) for _ in range(2)
        )
        self.x_proj, self.x_proj_b = (nn.Linear(inner, selection, bias=False) for _ in range(2))
        self.dt_proj, self.dt_proj_b = (nn.Linear(self.time_step_rank, inner) for _ in range(2))
        self.A_log, self.A_b_log = (nn.Parameter(torch.empty(inner, self.state_size)) for _ in range(2))
        self.D, self.D_b = (nn.Parameter(torch.empty(inner)) for _ in range(2))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        x, gate = self.in_proj(hidden_states).chunk(2, dim=-1)  # (windows, tokens, inner)
        forwards = self.read(x, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        backwards = self.read(x.flip(1), self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)
        return self.out_proj((forwards + backwards.flip(1)) * nn.functional.silu(gate) / 2)

    def read(
        self,
        x: torch.Tensor,
        conv1d: nn.Conv1d,
        x_proj: nn.Linear,
        dt_proj: nn.Linear,
        A_log: torch.Tensor,
        D: torch.Tensor,
    ) -> torch.Tensor:
        """Read the tokens with the weights of one direction, (windows, tokens, inner) -> the same shape."""
        padded = nn.functional.pad(x, (0, 0, conv1d.kernel_size[0] - 1, 0))
        u = nn.functional.silu(causal_conv(padded.to(conv1d.weight.dtype), conv1d.weight.squeeze(1), conv1d.bias))
        dt, B, C = x_proj(u).split([self.time_step_rank, self.state_size, self.state_size], dim=-1)
        with no_autocast(u):
            dt = dt_proj(as_weight(dt, dt_proj))
        y, _ = selective_scan(u, dt, -torch.exp(A_log.float()), B, C, D=D)
        return y


class SsambaLayer(GradientCheckpointingLayer):
    """Add the input to the running sum and mix the norm of the sum; the mixed tokens and the sum are returned."""

    def __init__(self, config: SsambaConfig, drop_path: float):
        super().__init__()
        self.drop_path = drop_path
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mixer = SsambaMixer(config)

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if residual is None:
            residual = hidden_states
        else:
            residual = residual + stochastic_depth(hidden_states, self.drop_path, self.training)
        return self.mixer(self.norm(residual)), residual


def stochastic_depth(branch: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """
    In training, drop the branch for a random part of the windows and scale the rest (Huang et al., 2016).

    Args:
        branch: Tokens of the branch, (windows, tokens, dim).
        rate: Probability that a window's branch is dropped, from 0 to below 1.
        training: Whether the model is in training.
    """
    if not training or rate == 0.0:
        return branch
    keep = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= rate
    return branch * keep.to(branch.dtype) / (1.0 - rate)


class SsambaPreTrainedModel(PreTrainedModel):
    config: SsambaConfig
    base_model_prefix = "ssamba"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["SsambaEmbeddings", "SsambaLayer"]
    # Decay rates and step sizes stand in an exponent: rounded to half precision they would change how long the state
    # lasts.
    _keep_in_fp32_modules_strict = {"A_log", "A_b_log", "dt_proj", "dt_proj_b"}

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that transformers initialises modules without weights of their own, as in its own models."""
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise decays, step sizes and skips as Mamba-1 does; scale `out_proj` for the depth, as upstream."""
        super()._init_weights(module)
        if isinstance(module, SsambaEmbeddings):
            for weight in (module.cls_token, module.positions):
                init.trunc_normal_(weight, std=self.config.initializer_range)
        elif isinstance(module, SsambaMixer):
            rates = torch.arange(1, module.state_size + 1, dtype=torch.float32).log()
            for A_log, D, dt_proj in (
                (module.A_log, module.D, module.dt_proj),
                (module.A_b_log, module.D_b, module.dt_proj_b),
            ):
                init.copy_(A_log, rates.expand(A_log.shape))
                init.ones_(D)
                init_step_size(dt_proj)
            bound = (3 / module.out_proj.in_features) ** 0.5 / self.config.num_hidden_layers**0.5
            init.uniform_(module.out_proj.weight, -bound, bound)


def init_step_size(dt_proj: nn.Linear) -> None:
    """Initialise the projection for step sizes from 0.001 to 0.1, spread evenly on a logarithmic scale."""
    bound = dt_proj.in_features**-0.5
    init.uniform_(dt_proj.weight, -bound, bound)
    steps = 10 ** torch.empty(dt_proj.out_features).uniform_(-3, -1)
    init.copy_(dt_proj.bias, steps + torch.log(-torch.expm1(-steps)))  # softplus gives `steps` back


class SsambaModel(SsambaPreTrainedModel):
    """The SSAMBA encoder without a head."""

    def __init__(self, config: SsambaConfig):
        super().__init__(config)
        self.embeddings = SsambaEmbeddings(config)
        depth = config.num_hidden_layers
        rates = [config.drop_path_rate * max(index - 1, 0) / max(depth - 1, 1) for index in range(depth)]
        self.layers = nn.ModuleList([SsambaLayer(config, rate) for rate in rates])
        self.norm_f = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor,
        masked_patches: torch.Tensor | None = None,
        mask_embed: torch.Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """
        Args:
            input_features: Normalised log-mel windows, (windows, frames, 128).
            masked_patches: Indices `f * times + t` of the patches that `mask_embed` replaces, (windows, masked).
            mask_embed: Embedding that stands for a masked patch, (1, 1, hidden_size), for masked training.
            output_hidden_states: Whether to return the running sum after every pair (or layer, without pairs), with
                its tokens in the order of `last_hidden_state`.

        Returns:
            `last_hidden_state`, (windows, 1 + times * frequencies, hidden_size): the summary token, then the patch of
            time t and frequency f at `1 + t * frequencies + f`.

        Raises:
            ValueError: The features have another shape.
        """
        hidden, times = self.embeddings(input_features.to(self.dtype), masked_patches, mask_embed)
        residual, sums = None, []
        for step in self.steps():
            hidden, residual = step(hidden, residual)
            if output_hidden_states:
                sums.append(time_major(hidden + residual, times))
        total = stochastic_depth(hidden, self.config.drop_path_rate, self.training)
        total = total if residual is None else total + residual
        tokens = self.norm_f(self.norm_f(total))  # upstream applies it twice, and the weights were trained so
        return BaseModelOutput(
            last_hidden_state=time_major(tokens, times), hidden_states=tuple(sums) if output_hidden_states else None
        )

    def steps(self) -> list[Callable]:
        """List what the tokens go through, one after the other: pairs of layers, or single layers."""
        if not self.config.paired_layers:
            return list(self.layers)
        return [Pair(*self.layers[index : index + 2]) for index in range(0, len(self.layers), 2)]


class Pair:
    """Two layers on the same tokens, of which the second reads them backwards; the outputs of both are added."""

    def __init__(self, forwards: SsambaLayer, backwards: SsambaLayer):
        self.forwards, self.backwards = forwards, backwards

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        mixed, total = self.forwards(hidden, residual)
        mixed_b, total_b = self.backwards(hidden.flip(1), None if residual is None else residual.flip(1))
        return mixed + mixed_b.flip(1), total + total_b.flip(1)


class SsambaForAudioClassification(SsambaPreTrainedModel):
    """SSAMBA with the head of its fine-tuned files, on the mean of the patches' tokens or on the summary token."""

    def __init__(self, config: SsambaConfig):
        super().__init__(config)
        self.ssamba = SsambaModel(config)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self, input_features: torch.Tensor, labels: torch.Tensor | None = None, **kwargs
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_features: Normalised log-mel windows, (windows, frames, 128), as for `SsambaModel`.
            labels: Class ids, (windows,), or with `problem_type="multi_label_classification"` (AudioSet) targets from
                0 to 1, (windows, num_labels).

        Returns:
            `logits`, (windows, num_labels), and `loss` if labels are given.
        """
        outputs = self.ssamba(input_features, return_dict=True, **kwargs)
        tokens = outputs.last_hidden_state
        # (windows, hidden_size)
        pooled = tokens[:, 0] if self.config.pooling == "cls" else tokens[:, 1:].mean(1)
        logits = self.head(self.fc_norm(pooled))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


__all__ = ["SsambaForAudioClassification", "SsambaModel", "SsambaPreTrainedModel"]

"""
EAT, the Efficient Audio Transformer (Chen et al., arXiv 2401.03497), maps log-mel windows to tokens on a grid.

It follows upstream `cwx-worst-one/EAT` (commit 06c1c34): the blocks are post-norm, the patches have fixed 2-D sin-cos
positions, CLS has no position, and there is no final norm.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention_mac import attend_by_window, eager_attention_forward, is_plain_faster
from .configuration_mac import EatConfig
from .int8_mac import wants_bf16
from .linear_mac import project
from .token_pruning_mac import gather_tokens, num_kept, patch_scores, patch_statistics, scatter_tokens, top_patches


MAX_TIME_PATCHES = 768  # time steps in upstream's position table, of 160 ms each: 122.88 s


def sin_cos_positions(dim: int, columns: int) -> torch.Tensor:
    """
    Compute upstream's fixed position table, (1, 768 * columns, dim); time t and frequency f are row `t * columns + f`.

    The first half of the channels encodes f, the second half t, each as [sin, cos]. The table is computed in numpy's
    float32, which gives the same bits as upstream (`utils/pos_embed.py`); torch differs by up to 6e-5.

    Args:
        dim: Width of the tokens, a multiple of 4.
        columns: Number of patches along the frequency.
    """
    omega = np.arange(dim // 4, dtype=np.float32)
    omega /= dim / 4.0
    omega = 1.0 / 10000**omega  # (dim / 4,) angular frequencies
    time, frequency = np.meshgrid(
        np.arange(MAX_TIME_PATCHES, dtype=np.float32), np.arange(columns, dtype=np.float32), indexing="ij"
    )
    halves = []
    for position in (frequency, time):
        angle = np.outer(position.reshape(-1), omega)
        halves += [np.sin(angle), np.cos(angle)]
    return torch.from_numpy(np.concatenate(halves, axis=1)).float().unsqueeze(0)


@dataclass
class EatModelOutput(BaseModelOutput):
    """
    Args:
        kept_patches: Indices of the patches that no pruning dropped, (windows, kept), in the order of time; None
            without pruning.
    """

    kept_patches: torch.Tensor | None = None


class EatEmbeddings(nn.Module):
    """Cut a log-mel window into patches, add their positions and put CLS in front."""

    positions: torch.Tensor

    def __init__(self, config: EatConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.num_mel_bins = config.num_mel_bins
        self.columns = config.grid[1]
        self.patch_embedding = nn.Conv2d(1, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # The table is not saved: `_init_weights` computes it again after loading.
        self.register_buffer("positions", sin_cos_positions(config.hidden_size, self.columns), persistent=False)

    def forward(self, input_features: torch.Tensor, kept_patches: torch.Tensor | None = None) -> torch.Tensor:
        self.check_shape(input_features)
        patches = self.patch_embedding(input_features.unsqueeze(1))  # (windows, dim, time, freq)
        hidden_states = patches.flatten(2).transpose(1, 2)  # (windows, time * freq, dim)
        hidden_states = hidden_states + self.positions[:, : hidden_states.shape[1]].to(hidden_states.dtype)
        if kept_patches is not None:
            hidden_states = gather_tokens(hidden_states, kept_patches)  # (windows, kept, dim)
        cls_token = self.cls_token.expand(hidden_states.shape[0], -1, -1)  # (windows, 1, dim)
        return self.layer_norm(torch.cat([cls_token, hidden_states], dim=1))

    def check_shape(self, input_features: torch.Tensor) -> None:
        """Refuse anything but (windows, frames, mel bins) with a whole number of patches."""
        shape, longest = tuple(input_features.shape), MAX_TIME_PATCHES * self.patch_size
        if len(shape) != 3 or shape[2] != self.num_mel_bins:
            raise ValueError(f"`input_features` has shape {shape}; expected (windows, frames, {self.num_mel_bins}).")
        if shape[1] % self.patch_size or not 0 < shape[1] <= longest:
            raise ValueError(
                f"`input_features` has {shape[1]} frames; expected a multiple of {self.patch_size}, at most {longest}."
            )


def into_branch(hidden_states: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """
    Return what enters a branch: in bf16 where its first layer, of 8 bits, multiplies in bf16.

    All of the branch is then, which spares casts and half of the memory; the sum of the branches stays in float32.
    """
    return hidden_states.bfloat16() if wants_bf16(layer, hidden_states) else hidden_states


class EatAttention(nn.Module):
    """Multi-head self-attention over all tokens of a window; like upstream it does not mask a short clip's padding."""

    def __init__(self, config: EatConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, score: str | None = None, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """
        Attend from every token to every token.

        Args:
            hidden_states: Tokens, (windows, length, dim).
            score: Rule of `patch_scores` by which patches are scored; None for no scores.

        Returns:
            The output, (windows, length, dim); the weights, (windows, heads, length, length), if the implementation
            gives them; and the scores of the patches, (windows, patches), if they were asked for.
        """
        windows, length, _ = hidden_states.shape
        qkv = project(self.qkv, into_branch(hidden_states, self.qkv)).view(
            windows, length, 3, self.num_heads, self.head_dim
        )
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (windows, heads, length, head_dim)
        implementation = self.config._attn_implementation
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        if implementation == "sdpa" and is_plain_faster(query):
            attention = attend_by_window
        output, weights = attention(self, query, key, value, None, scaling=self.scaling, dropout=0.0, **kwargs)
        scores = None if score is None else patch_scores(query, key, self.scaling, score)
        return project(self.proj, output.reshape(windows, length, -1)), weights, scores


class EatMlp(nn.Module):
    """The two-layer MLP of a block, with the exact GELU."""

    def __init__(self, config: EatConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return project(self.fc2, project(self.fc1, into_branch(hidden_states, self.fc1), gelu=True))


class EatLayer(GradientCheckpointingLayer):
    """A post-norm block, in which the MLP is added to the *normalised* output of the attention."""

    def __init__(self, config: EatConfig, drop_path: float):
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = EatAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = EatMlp(config)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        attention_output, _, _ = self.attention(hidden_states, **kwargs)
        hidden_states = self.norm1(hidden_states + self.stochastic_depth(attention_output))
        return self.norm2(hidden_states + self.stochastic_depth(self.mlp(hidden_states)))

    def stochastic_depth(self, branch: torch.Tensor) -> torch.Tensor:
        """
        In training, drop the branch for a random part of the windows and scale the rest (Huang et al., 2016).

        Args:
            branch: Output of the attention or the MLP, (windows, length, dim).
        """
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.drop_path
        return branch * keep.to(branch.dtype) / (1.0 - self.drop_path)


class EatPruningLayer(EatLayer):
    """A block that drops some patches between its attention and its MLP."""

    def __init__(self, config: EatConfig, drop_path: float):
        super().__init__(config, drop_path)
        self.config = config

    def forward(
        self, hidden_states: torch.Tensor, ranks: torch.Tensor | None = None, **kwargs
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            ranks: (windows, patches) what to keep patches by, in place of this block's attention.

        Returns:
            With a `keep_rate` of 1, the same as any block. Otherwise the output, (windows, 1 + kept, dim), the indices
            of its patches, (windows, kept), and all patches after the attention, (windows, patches, dim).
        """
        if self.config.keep_rate == 1:
            return super().forward(hidden_states, **kwargs)
        score = self.config.pruning_score if ranks is None else None
        attention_output, _, scores = self.attention(hidden_states, score=score, **kwargs)
        hidden_states = self.norm1(hidden_states + self.stochastic_depth(attention_output))
        patches = hidden_states[:, 1:]
        kept = top_patches(scores if ranks is None else ranks, num_kept(patches.shape[1], self.config.keep_rate))
        hidden_states = torch.cat([hidden_states[:, :1], gather_tokens(patches, kept)], dim=1)
        return self.norm2(hidden_states + self.stochastic_depth(self.mlp(hidden_states))), kept, patches


class EatPreTrainedModel(PreTrainedModel):
    config: EatConfig
    base_model_prefix = "eat"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["EatEmbeddings", "EatLayer", "EatPruningLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": EatLayer, "attentions": EatAttention}

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that transformers initialises modules without weights of their own, as in its own models."""
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise every matrix by Xavier's rule, as upstream does, the convolution of the patches among them."""
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, EatEmbeddings):
            fan_in, fan_out = module.patch_embedding.weight[0].numel(), len(module.patch_embedding.weight)
            bound = (6 / (fan_in + fan_out)) ** 0.5  # Xavier's, with the convolution as a matrix (dim, patch cells)
            init.uniform_(module.patch_embedding.weight, -bound, bound)
            init.zeros_(module.patch_embedding.bias)
            init.normal_(module.cls_token, std=self.config.initializer_range)
            init.copy_(module.positions, sin_cos_positions(module.positions.shape[-1], module.columns))


class EatModel(EatPreTrainedModel):
    """The EAT encoder without a head."""

    def __init__(self, config: EatConfig):
        super().__init__(config)
        self.embeddings = EatEmbeddings(config)
        depth = config.num_hidden_layers
        drop_path = [config.drop_path_rate * index / max(depth - 1, 1) for index in range(depth)]
        pruned = set(config.pruned_layers)
        self.layers = nn.ModuleList(
            [(EatPruningLayer if index in pruned else EatLayer)(config, rate) for index, rate in enumerate(drop_path)]
        )
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self, input_features: torch.Tensor, kept_patches: torch.Tensor | None = None, **kwargs
    ) -> EatModelOutput:
        """
        Args:
            input_features: Normalised log-mel windows, (windows, frames, 128), where frames is a multiple of 16.
            kept_patches: Indices of the patches that enter the blocks, (windows, kept), for masked training; all
                patches if None. The tokens come out in this order.

        Returns:
            `last_hidden_state`, (windows, 1 + frames / 16 * 8, hidden_size): CLS, then the patch of time t and
            frequency f at `1 + t * 8 + f`. Where patches are pruned, `kept_patches` tells which of the patches that
            entered went through all blocks.

        Raises:
            ValueError: The features have another shape.
        """
        hidden_states = self.embeddings(input_features.to(self.dtype), kept_patches)
        seen: tuple[torch.Tensor, torch.Tensor] | None = None  # all patches as last seen, and which of them go on
        ranks = self.rank_patches(input_features, kept_patches)
        for layer in self.layers:
            if ranks is not None and isinstance(layer, EatPruningLayer):
                kwargs["ranks"] = ranks if seen is None else ranks.gather(1, seen[1])
            output = layer(hidden_states, **kwargs)
            kwargs.pop("ranks", None)
            if isinstance(output, torch.Tensor):
                hidden_states = output
                continue
            hidden_states, kept, patches = output
            seen = (patches, kept) if seen is None else (scatter_tokens(*seen, patches), seen[1].gather(1, kept))
        if seen is not None and self.config.pruned_tokens == "grid":
            hidden_states = torch.cat([hidden_states[:, :1], scatter_tokens(*seen, hidden_states[:, 1:])], dim=1)
        return EatModelOutput(last_hidden_state=hidden_states, kept_patches=None if seen is None else seen[1])

    def rank_patches(self, input_features: torch.Tensor, kept_patches: torch.Tensor | None) -> torch.Tensor | None:
        """(windows, patches) what patches are kept by where that is no attention; None where it is."""
        if self.config.pruning_score in ("cls", "mean") or self.config.keep_rate == 1:
            return None
        intensity, deviation = patch_statistics(input_features, self.config.patch_size)
        ranks = intensity if self.config.pruning_score == "intensity" else deviation
        return ranks if kept_patches is None else ranks.gather(1, kept_patches)


def mean_by_clip(rows: torch.Tensor, audio_num_windows: torch.Tensor) -> torch.Tensor:
    """(windows of all clips, n) and (clips,) windows of each -> (clips, n)."""
    clips = torch.arange(len(audio_num_windows), device=rows.device).repeat_interleave(audio_num_windows)
    sums = rows.new_zeros(len(audio_num_windows), rows.shape[1]).index_add(0, clips, rows)
    return sums / audio_num_windows.unsqueeze(1).to(rows)


class EatForAudioClassification(EatPreTrainedModel):
    """EAT with the head of its fine-tuned releases (527 AudioSet classes): a linear layer on the normalised CLS."""

    def __init__(self, config: EatConfig):
        super().__init__(config)
        self.eat = EatModel(config)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor,
        labels: torch.Tensor | None = None,
        audio_num_windows: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_features: (windows, frames, 128), as `EatModel`.
            labels: (clips,) class ids, or (clips, num_labels) in 0..1 with
                `problem_type="multi_label_classification"` (AudioSet).
            audio_num_windows: (clips,) windows of each clip; one each if None.

        Returns:
            `logits` (clips, num_labels), means over the windows of a clip; `loss` if labels are given.
        """
        outputs = self.eat(input_features, **kwargs)
        logits = self.head(self.fc_norm(outputs.last_hidden_state[:, 0]))
        if audio_num_windows is not None:
            logits = mean_by_clip(logits, audio_num_windows)
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **kwargs)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = ["EatForAudioClassification", "EatModel", "EatPreTrainedModel"]

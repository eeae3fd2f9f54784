"""
What MOHAWK (Bick et al., arXiv 2408.10189) makes of a transformer: the same, with discrete Mamba-2 for attention.

For every head with a state h of (head_dim x state), with a decay a_t in (0, 1) and no step size,

    h_t = a_t h_{t-1} + x_t B_t^T        y_t = h_t C_t + D x_t        a_t = sigmoid(-A_log_t)

so that y = T x with T[t, s] = C_t . B_s a_{s+1} ... a_t, + D on the diagonal: causal attention without softmax.
Layers, norms, MLPs, positions and the attention of the layers that keep it are those of transformers.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from .cache_mac import StateLayer
from .configuration_discrete_mac import ATTENTION_NAMES, DiscreteMamba2Config
from .linear_mac import project
from .modeling_mamba2_mac import StateSpaceMixer, mask_padding
from .ssd_mac import chunk_decays, decay_scan, no_autocast


OPEN_GATE = 1.278464542761  # SiLU of it is 1: a new gate lets everything through


class HybridCache(DynamicCache):
    """A cache with a `StateLayer` for each mixer and keys and values for each layer that keeps its attention."""

    def __init__(self, config: DiscreteMamba2Config):
        super().__init__()
        kept = set(config.attention_layers)
        self.layers = [DynamicLayer() if index in kept else StateLayer() for index in range(config.num_hidden_layers)]
        self.has_attention = bool(kept)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Give the number of tokens that the attention has seen; 0 without any, for then nothing has positions."""
        return super().get_seq_length(layer_idx) if self.has_attention else 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Give length and offset of the attention's keys; those of this call alone where nothing attends."""
        return super().get_mask_sizes(query_length, layer_idx) if self.has_attention else (query_length, 0)


class DiscreteMamba2Mixer(StateSpaceMixer, nn.Module):
    """The token mixer: in_proj, causal convolution without activation, scan, SiLU gate, out_proj; there is no norm."""

    activation = None

    def __init__(self, config: DiscreteMamba2Config, layer_idx: int):
        super().__init__()
        self.layer_idx, self.conv_kernel_size = layer_idx, config.conv_kernel
        self.num_heads, self.groups, self.state_size = config.num_v_heads, config.num_qk_heads, config.state_size
        self.inner = config.expand * config.hidden_size
        self.act = nn.Identity()
        state_width = self.groups * self.state_size
        self.conv_widths = [self.inner, state_width, state_width]  # x, B, C
        # Rows of in_proj in this order: x, B, C, z, A_log. (Mamba-2's: z, x, B, C, dt.)
        self.in_proj = nn.Linear(config.hidden_size, sum(self.conv_widths) + self.inner + self.num_heads, bias=False)
        channels = sum(self.conv_widths)
        self.conv1d = nn.Conv1d(
            channels, channels, config.conv_kernel, groups=channels, padding=config.conv_kernel - 1
        )
        self.z_bias = nn.Parameter(torch.full((self.inner,), OPEN_GATE))
        self.D = nn.Parameter(torch.ones(self.num_heads))
        self.out_proj = nn.Linear(self.inner, config.hidden_size, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        layer_past: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """
        Mix tokens, (batch, length, hidden_size), where a layer of transformers calls its attention.

        Args:
            hidden_states: Normalised tokens, (batch, length, hidden_size).
            padding_mask: Mask of the cached tokens and these, (batch, tokens), 0 at padding.
            cache: Cache of all layers, as phi and llama name it.
            layer_past: Cache of all layers, as gpt_neox names it.
        """
        mask = None if padding_mask is None else padding_mask[:, -hidden_states.shape[1] :]
        return super().forward(hidden_states, layer_past if cache is None else cache, mask), None

    def mix(
        self,
        hidden_states: torch.Tensor,
        cache: Cache | None,
        attention_mask: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
    ) -> torch.Tensor:
        """`forward` on tokens that follow those in the cache."""
        state = cache.get_recurrent_state(self.layer_idx, state_idx=0) if cache is not None else None
        x, B, C, z, log_decay = self.read(hidden_states, cache, attention_mask)
        y, final_state = decay_scan(x, log_decay, B, C, D=self.D, initial_state=state)
        if cache is not None:
            cache.update_recurrent_state(final_state, layer_idx=self.layer_idx)
        y = y.flatten(2) * nn.functional.silu(z + self.z_bias)
        return project(self.out_proj, y.to(hidden_states.dtype))

    def read(
        self, hidden_states: torch.Tensor, cache: Cache | None = None, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """
        Project and convolve tokens, (batch, length, hidden_size).

        Returns:
            x: (batch, length, heads, head_dim); B, C: (batch, length, groups, state); gate z: (batch, length, inner);
            logarithm of the decays: (batch, length, heads) float32.
        """
        projected = project(self.in_proj, mask_padding(hidden_states, attention_mask))
        conv_input, z, A_log = projected.split([sum(self.conv_widths), self.inner, self.num_heads], dim=-1)
        convolved = mask_padding(self.convolve(conv_input, cache, None), attention_mask)
        x, B, C = convolved.split(self.conv_widths, dim=-1)
        B, C = (part.unflatten(-1, (self.groups, self.state_size)) for part in (B, C))
        # Straight into the scan: x / dt, as upstream has it, is inf * 0 where a head forgets at once.
        log_decay = nn.functional.logsigmoid(-A_log.float())
        return x.unflatten(-1, (self.num_heads, -1)), B, C, z, log_decay

    def matrix(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute T, (batch, heads, query, key), of normalised tokens (batch, length, hidden_size)."""
        _, B, C, _, log_decay = self.read(hidden_states, attention_mask=attention_mask)
        between, _ = chunk_decays(log_decay.transpose(1, 2), None, slice(0, hidden_states.shape[1]))
        B, C = (part.float().repeat_interleave(self.num_heads // self.groups, 2).transpose(1, 2) for part in (B, C))
        with no_autocast(C):
            matrix = (C @ B.mT * between.mT).tril()
        return matrix + torch.diag_embed(self.D.float()[:, None].expand(-1, matrix.shape[-1]))


class DiscreteMamba2Model(PreTrainedModel):
    """A transformer of transformers whose attention, but in `attention_layers`, is a `DiscreteMamba2Mixer`."""

    config: DiscreteMamba2Config
    config_class = DiscreteMamba2Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _is_stateful = True
    _supports_sdpa = True
    _no_split_modules = ["PhiDecoderLayer", "GPTNeoXLayer", "LlamaDecoderLayer"]
    _skip_keys_device_placement = ["cache", "layer_past"]

    def __init__(self, config: DiscreteMamba2Config):
        super().__init__(config)
        source = config.source_config()
        source._attn_implementation = config._attn_implementation
        self.backbone = AutoModel.from_config(source)
        for index, layer in enumerate(self.layers):
            if index not in config.attention_layers:
                setattr(layer, self.attention_name, DiscreteMamba2Mixer(config, index))
        self.post_init()

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that transformers initialises modules without weights of their own, as in its own models."""
        return False

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks."""
        return self.backbone.layers

    @property
    def attention_name(self) -> str:
        """The name, in a block, of the attention or of the mixer in its place."""
        return ATTENTION_NAMES[self.config.source["model_type"]]

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """
        Start the mixers as attention's form: an identity for a convolution and an open gate.

        It is done when the turn comes to the model itself, since the transformer below initialises what it holds.
        """
        if not isinstance(module, DiscreteMamba2Model):
            return
        for mixer in (one for one in module.modules() if isinstance(one, DiscreteMamba2Mixer)):
            rows = torch.randn_like(mixer.in_proj.weight) * self.config.initializer_range
            rows[sum(mixer.conv_widths) :][: mixer.inner] = 0.0  # the rows of z
            init.copy_(mixer.in_proj.weight, rows)
            init.normal_(mixer.out_proj.weight, std=self.config.initializer_range)
            taps = torch.zeros_like(mixer.conv1d.weight)
            taps[..., -1] = 1.0
            init.copy_(mixer.conv1d.weight, taps)
            init.zeros_(mixer.conv1d.bias)
            init.constant_(mixer.z_bias, OPEN_GATE)
            init.ones_(mixer.D)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """
        Args:
            input_ids: Token ids, (batch, length); or `inputs_embeds`, (batch, length, width).
            attention_mask: Mask of the cached tokens and these, (batch, tokens), 0 at padding.
            cache: Cache that a previous call returned.
            use_cache: Whether to return the cache; by default not in training.
        """
        use_cache = use_cache if use_cache is not None else not self.training
        if use_cache and cache is None:
            cache = HybridCache(self.config)
        return self.backbone(
            input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask, cache=cache,
            use_cache=use_cache, padding_mask=attention_mask, **kwargs,
        )  # fmt: skip


__all__ = ["DiscreteMamba2Mixer", "DiscreteMamba2Model"]

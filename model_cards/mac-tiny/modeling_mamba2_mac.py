"""
The Mamba-2 backbone: transformers' `Mamba2Model` (same config, cache and state dict) with a mixer on our own scan.

CUDA tensors go to the kernels of mamba-ssm and causal-conv1d where both are installed, all others to `ssd_scan`. The
fused training kernel of mamba-ssm is not used: it reads the weight of `out_proj` directly and so passes over any LoRA
on it. Here `out_proj` is always called as a module.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.integrations.accelerate import force_accelerate_hooks
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer, Mamba2Model, Mamba2Output

from .cache_mac import StateCache
from .causal_conv_mac import causal_conv, causal_conv_silu, conv_step
from .cuda_kernels_mac import CONV_STRIDE, as_conv_kernel_takes, kernels_for
from .decode_step_mac import can_step, step_through
from .graph_step_mac import StepGraphs, can_replay
from .linear_mac import is_hooked, project_by_modality
from .norm_mac import GatedRMSNorm, RMSNorm
from .ssd_mac import ssd_scan, ssd_step, step_size


# Tokens that go through a layer at a time on a CPU where nothing is kept for training. Tensors of this length stay in
# the caches of the processor.
PIECE = 1024
AUDIO_PROJECTIONS = ("in_proj", "out_proj")  # those of which audio may have its own
EXPONENTS = ("A_log", "dt_bias")  # half precision would change how long the state lasts


def mask_padding(hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Zero the padded tokens of (batch, length, width) by a mask (batch, length), so that no state takes them in."""
    return hidden_states if attention_mask is None else hidden_states * attention_mask.unsqueeze(-1).to(hidden_states)


class StateSpaceMixer:
    """The shared part of the mixers of Mamba-1 and Mamba-2: long inputs in pieces, and the convolution."""

    layer_idx: int
    conv_kernel_size: int
    conv1d: nn.Conv1d
    activation: str | None
    act: Callable[[torch.Tensor], torch.Tensor]

    @force_accelerate_hooks("conv1d")
    def forward(
        self,
        hidden_states: torch.Tensor,
        cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        seq_idx: torch.Tensor | None = None,
        is_audio: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """
        Args:
            hidden_states: Normalised tokens, (batch, length, hidden_size).
            cache: Cache with the convolution's and the scan's states of all layers, which is read and updated.
            attention_mask: Mask of these tokens, (batch, length), 0 at padding.
            seq_idx: Number of the packed sequence that each token belongs to, (batch, length) int32.
            is_audio: Whether a token is audio, (batch, length), for a mixer with projections by modality.

        Returns:
            Mixed tokens, (batch, length, hidden_size).
        """
        length = hidden_states.shape[1]
        in_pieces = cache is not None and seq_idx is None and not torch.is_grad_enabled()
        if not (in_pieces and length > PIECE and hidden_states.device.type == "cpu"):
            return self.mix(hidden_states, cache, attention_mask, seq_idx, *([] if is_audio is None else [is_audio]))
        number = math.ceil(length / PIECE)
        pieces = hidden_states.tensor_split(number, dim=1)
        masks = [None] * number if attention_mask is None else attention_mask.tensor_split(number, dim=1)
        audio = [[]] * number if is_audio is None else [[part] for part in is_audio.tensor_split(number, dim=1)]
        mixed = [
            self.mix(piece, cache, mask, None, *part) for piece, mask, part in zip(pieces, masks, audio, strict=True)
        ]
        return torch.cat(mixed, dim=1)

    def mix(
        self,
        hidden_states: torch.Tensor,
        cache: Cache | None,
        attention_mask: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
    ) -> torch.Tensor:
        """`forward` on tokens that follow those in the cache."""
        raise NotImplementedError  # the subclasses define it

    def convolve(
        self,
        conv_input: torch.Tensor,
        cache: Cache | None,
        seq_idx: torch.Tensor | None,
        conv1d: nn.Conv1d | None = None,
    ) -> torch.Tensor:
        """
        Apply the depthwise causal convolution over time and SiLU: (batch, length, channels) -> the same shape.

        `conv1d` is the mixer's own by default.
        """
        conv1d = self.conv1d if conv1d is None else conv1d
        length, kernel = conv_input.shape[1], self.conv_kernel_size
        kernels, weight, bias = kernels_for(conv_input), conv1d.weight.squeeze(1), conv1d.bias
        decoding = (
            cache is not None
            and length == 1
            and cache.has_previous_state(self.layer_idx)
            and not cache.is_recording_past(self.layer_idx)
        )
        if cache is not None and decoding:
            conv_state = cache.get_conv_state(self.layer_idx, state_idx=0)
            if kernels is not None and not conv_input.requires_grad:  # the kernel has no backward pass
                return kernels.conv_update(conv_input.mT, conv_state, weight, bias, self.activation).mT
            return self.act(conv_step(conv_state, conv_input[:, 0], weight, bias)).unsqueeze(1)
        if cache is not None:
            conv_input = cache.update_conv_state(
                conv_input.mT, self.layer_idx, conv_kernel_size=kernel
            ).mT  # the tokens that the cache holds, if there are any, now stand in front of those of this call
        if seq_idx is not None:  # the tokens from the cache belong to the first sequence
            context = seq_idx[:, :1].expand(-1, conv_input.shape[1] - length)
            seq_idx = torch.cat([context, seq_idx], dim=1)
        if kernels is not None and conv_input.shape[-1] % CONV_STRIDE == 0:
            tokens = as_conv_kernel_takes(conv_input)
            output = kernels.conv(tokens.mT, weight, bias, activation=self.activation, seq_idx=seq_idx)
            return output[..., -length:].mT
        plain = conv_input.dtype == weight.dtype == torch.float32 and self.activation in ("silu", "swish")
        plain = plain and seq_idx is None and isinstance(self.act, nn.Module) and not is_hooked(self.act)
        if plain and not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
            return causal_conv_silu(conv_input[:, 1 - kernel - length :], length, weight, bias)
        missing = max(length + kernel - 1 - conv_input.shape[1], 0)
        # (batch, kernel - 1 + length, channels)
        padded = nn.functional.pad(conv_input[:, 1 - kernel - length :], (0, 0, missing, 0))
        if seq_idx is not None:
            seq_idx = nn.functional.pad(seq_idx[:, 1 - kernel - length :], (missing, 0))
        return self.act(causal_conv(padded.to(weight.dtype), weight, bias, seq_idx))


class Mamba2MacMixer(StateSpaceMixer, Mamba2Mixer):
    """
    The token mixer of Mamba-2: in_proj, causal convolution, state-space scan, gated norm, out_proj.

    With projections by modality (Mixture-of-Mamba, arXiv 2501.16295) audio tokens go through `in_proj_audio` and
    `out_proj_audio`; all else is shared, and the scan runs once over all tokens. The paper splits the projections of
    Mamba-1. In Mamba-2 in_proj alone gives what three give there: its rows z and x answer to Mamba-1's in_proj, its
    rows B, C and dt to x_proj (but before the convolution, not after it) and to dt_proj's weight, and `dt_bias`,
    which stays shared, to dt_proj's bias. A gated norm for each modality would add nothing: its weight can be taken
    into out_proj's columns.

    Args:
        config: Configuration of the language model.
        layer_idx: Number of the layer, from 0.
        initialize_mixer_weights: Whether decays and step sizes get their first values at once.
        audio_projections: Those of `AUDIO_PROJECTIONS` of which audio has its own.
    """

    def __init__(
        self,
        config: Mamba2Config,
        layer_idx: int,
        initialize_mixer_weights: bool = True,
        audio_projections: Sequence[str] = (),
    ):
        super().__init__(config, layer_idx, initialize_mixer_weights)
        for name in AUDIO_PROJECTIONS:
            own, dense = name in audio_projections, getattr(self, name)
            copy = nn.Linear(dense.in_features, dense.out_features, bias=dense.bias is not None) if own else None
            setattr(self, f"{name}_audio", copy)
        for name in EXPONENTS:  # in float32 also where the model is made in half precision
            setattr(self, name, nn.Parameter(getattr(self, name).to(torch.float32)))
        self.norm = GatedRMSNorm(
            self.intermediate_size, self.intermediate_size // self.n_groups, self.layer_norm_epsilon
        )

    @torch.no_grad()
    def copy_to_audio(self) -> None:
        """Let new projections of audio be copies of those of text, so that they change nothing at first."""
        for name in AUDIO_PROJECTIONS:
            dense, audio = getattr(self, name), getattr(self, f"{name}_audio")
            if audio is not None:
                init.copy_(audio.weight, dense.weight)
                if audio.bias is not None:
                    init.copy_(audio.bias, dense.bias)

    def mix(
        self,
        hidden_states: torch.Tensor,
        cache: Cache | None,
        attention_mask: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
        is_audio: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`forward` on tokens that follow those in the cache."""
        masked = mask_padding(hidden_states, attention_mask)
        projected = project_by_modality(self.in_proj, self.in_proj_audio, masked, is_audio)
        y = self.read(projected, cache, attention_mask, seq_idx).to(hidden_states.dtype)
        return project_by_modality(self.out_proj, self.out_proj_audio, y, is_audio)

    def read(
        self,
        projected: torch.Tensor,
        cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        seq_idx: torch.Tensor | None = None,
        way: Any = None,
    ) -> torch.Tensor:
        """
        Convolve, scan, gate and norm what in_proj gave.

        Args:
            projected: Gate, convolution's input and step sizes, (batch, length, rows of in_proj).
            cache, attention_mask, seq_idx: As in `forward`.
            way: Module whose `conv1d`, `A_log`, `D` and `dt_bias` are used; the mixer itself by default.

        Returns:
            Normed channels, (batch, length, intermediate size), as out_proj takes them.
        """
        way = self if way is None else way
        state = cache.get_recurrent_state(self.layer_idx, state_idx=0) if cache is not None else None
        gate, conv_input, dt = projected.split([self.intermediate_size, self.conv_dim, self.num_heads], dim=-1)
        conv_output = self.convolve(conv_input, cache, seq_idx, way.conv1d)
        conv_output = mask_padding(conv_output, attention_mask)
        state_width = self.n_groups * self.ssm_state_size
        x, B, C = conv_output.split([self.intermediate_size, state_width, state_width], dim=-1)
        x = x.unflatten(-1, (self.num_heads, self.head_dim))  # (batch, length, heads, head_dim)
        # B and C: (batch, length, groups, state)
        B, C = (projection.unflatten(-1, (self.n_groups, self.ssm_state_size)) for projection in (B, C))
        learns = x.requires_grad or (state is not None and state.requires_grad)
        # The step writes into the cached state through a view, which an exported graph would lose.
        in_place = not (learns or torch.compiler.is_exporting())
        if state is not None and x.shape[1] == 1 and in_place:
            y = self.step(state, x[:, 0], dt[:, 0], B[:, 0], C[:, 0]).unsqueeze(1)
        else:
            y, final_state = self.scan(x, dt, B, C, state, seq_idx, way)
            if cache is not None:
                cache.update_recurrent_state(final_state, layer_idx=self.layer_idx)
        return self.norm(y.flatten(2), gate)

    def scan(
        self,
        x: torch.Tensor,
        dt: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        state: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
        way: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Read any number of tokens with the decays of `way`.

        Returns:
            The outputs, (batch, length, heads, head_dim), and the final state, (batch, heads, head_dim, state).
        """
        A = -torch.exp(way.A_log.float())
        kernels = kernels_for(x)
        if kernels is None:
            return ssd_scan(
                x, dt, A, B, C, D=way.D, dt_bias=way.dt_bias, dt_limit=self.time_step_limit,
                initial_state=state, seq_idx=seq_idx,
            )  # fmt: skip
        if seq_idx is not None and state is not None:  # to the kernel, the state belongs to the sequence of number 0
            seq_idx = seq_idx - seq_idx[:, :1]
        return kernels.chunk_scan(
            x, dt, A, B, C, chunk_size=self.chunk_size, D=way.D, dt_bias=way.dt_bias, initial_states=state,
            seq_idx=seq_idx, dt_softplus=True, dt_limit=tuple(self.time_step_limit), return_final_states=True,
        )  # fmt: skip

    def step(
        self, state: torch.Tensor, x: torch.Tensor, dt: torch.Tensor, B: torch.Tensor, C: torch.Tensor
    ) -> torch.Tensor:
        """Read one token, (batch, heads, head_dim) -> the same shape, and change the cached state in place."""
        A = -torch.exp(self.A_log.float())
        kernels = kernels_for(x)
        if kernels is None:
            return ssd_step(state, x, dt, A, B, C, D=self.D, dt_bias=self.dt_bias, dt_limit=self.time_step_limit)
        head_dim, state_size = self.head_dim, self.ssm_state_size
        limited = tuple(self.time_step_limit) != (0.0, math.inf)  # the kernel has no limits: they are applied before
        dt = step_size(dt, self.dt_bias, self.time_step_limit) if limited else dt
        # mamba-ssm 2.3.2 fails without a bias.
        dt_bias = torch.zeros_like(self.dt_bias) if limited else self.dt_bias
        return kernels.state_update(
            state,
            x,
            dt.unsqueeze(-1).expand(-1, -1, head_dim),
            A[:, None, None].expand(-1, head_dim, state_size),
            B,
            C,
            D=self.D[:, None].expand(-1, head_dim),
            dt_bias=dt_bias[:, None].expand(-1, head_dim),
            dt_softplus=not limited,
        )


class Mamba2MacModel(Mamba2Model):
    """
    `Mamba2Model` whose blocks hold `Mamba2MacMixer`; weights, config and cache are interchangeable.

    Args:
        config: Configuration of the language model.
        audio_projections: Projections of which audio tokens have their own; a dense model's are then copied.
    """

    _keep_in_fp32_modules_strict = set(EXPONENTS)
    # `compile_decoding` switches on the one or the other.
    decodes_compiled = False
    step_graphs: StepGraphs | None = None

    def __init__(self, config: Mamba2Config, audio_projections: Sequence[str] = ()):
        super().__init__(config)
        for index, block in enumerate(self.layers):
            block.norm = RMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
            block.mixer = Mamba2MacMixer(config, index, False, audio_projections)
        self.norm_f = RMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as transformers does; projections of audio that no file held are copied from those of text."""
        mixer = module if isinstance(module, Mamba2MacMixer) else None
        # A mixer that a file filled must not be rescaled, only because its projections of audio are new.
        if mixer is None or not getattr(mixer.out_proj.weight, "_is_hf_initialized", False):
            super()._init_weights(module)
        if mixer is not None:
            mixer.copy_to_audio()

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that transformers initialises modules without weights of their own, as in its own models."""
        return False

    def get_correct_attn_implementation(self, *args: Any, **kwargs: Any) -> str:
        """It has no attention: whatever the encoder beside it takes may be named."""
        return "eager"

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> tuple | Mamba2Output:
        """
        Run `Mamba2Model.forward`, but with a `StateCache` where a new cache is made.

        One token after a cache takes fewer operations or is a CUDA graph, if nothing else is asked for.
        """
        use_cache = use_cache if use_cache is not None else self.config.use_cache and not self.training
        if use_cache and cache is None and not (self.gradient_checkpointing and self.training):
            cache = StateCache(self.config)
        others = {name: value for name, value in kwargs.items() if name not in ("attention_mask", "return_dict")}
        plain = kwargs.get("return_dict") is not False and not self.config.output_hidden_states
        plain = plain and all(value is None or value is False for value in others.values())
        if inputs_embeds is not None and input_ids is None and plain:
            hidden_states = self.step(inputs_embeds, cache)
            if hidden_states is not None:
                return Mamba2Output(last_hidden_state=hidden_states, cache=cache if use_cache else None)
        return super().forward(input_ids, inputs_embeds, cache, use_cache, **kwargs)

    def step(self, inputs_embeds: torch.Tensor, cache: Cache | None) -> torch.Tensor | None:
        """Read one token after a cache, (batch, 1, width) -> the same; None if it is not one or needs the modules."""
        if self.step_graphs is not None and isinstance(cache, StateCache) and can_replay(inputs_embeds, cache):
            return self.step_graphs.step_through(self, inputs_embeds, cache)
        if not can_step(inputs_embeds, cache):
            return None
        hidden_states = step_through(self.layers, inputs_embeds, cache, self.decodes_compiled)
        return None if hidden_states is None else self.norm_f(hidden_states)


__all__ = ["Mamba2MacModel"]

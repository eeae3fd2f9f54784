"""
The Mamba-1 backbones, Mamba and Falcon-Mamba: transformers' models (same config and state dict) on our own scan.

CUDA tensors go to the kernels of mamba-ssm and causal-conv1d where both are installed, all others to `selective_scan`.
Two faults of transformers' mixer are avoided. It forgets its state when several tokens follow a cache, but here the
scan starts from the state. And it reads the weight of `dt_proj` directly, passing over any LoRA on it, but here every
projection is called as a module.
"""

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.falcon_mamba.configuration_falcon_mamba import FalconMambaConfig
from transformers.models.mamba.configuration_mamba import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer, MambaModel, MambaOutput

from .cache_mac import StateCache
from .cuda_kernels_mac import kernels_for
from .linear_mac import as_weight, project
from .modeling_mamba2_mac import StateSpaceMixer, mask_padding
from .norm_mac import RMSNorm, inverse_rms
from .selective_scan_mac import selective_scan, selective_step
from .ssd_mac import no_autocast


class MambaMacMixer(StateSpaceMixer, MambaMixer):
    """The token mixer of Mamba-1: in_proj, causal convolution, x_proj and dt_proj, selective scan, gate, out_proj."""

    def __init__(self, config: MambaConfig, layer_idx: int):
        super().__init__(config, layer_idx, initialize_mixer_weights=False)

    def mix(
        self,
        hidden_states: torch.Tensor,
        cache: Cache | None,
        attention_mask: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
    ) -> torch.Tensor:
        """`forward` on tokens that follow those in the cache."""
        state = cache.get_recurrent_state(self.layer_idx, state_idx=0) if cache is not None else None
        conv_input, gate = project(self.in_proj, mask_padding(hidden_states, attention_mask)).chunk(2, dim=-1)
        u = mask_padding(self.convolve(conv_input, cache, seq_idx), attention_mask)  # (batch, length, channels)
        sizes = [self.time_step_rank, self.ssm_state_size, self.ssm_state_size]
        dt, B, C = self.norm_selection(*project(self.x_proj, u).split(sizes, dim=-1))
        with no_autocast(u):
            dt = self.dt_proj(as_weight(dt, self.dt_proj))  # (batch, length, channels), in float32
        learns = u.requires_grad or (state is not None and state.requires_grad)
        # The step writes into the cached state through a view, which an exported graph would lose.
        in_place = not (learns or torch.compiler.is_exporting())
        if state is not None and u.shape[1] == 1 and in_place:
            y = self.step(state, u[:, 0], dt[:, 0], B[:, 0], C[:, 0]).unsqueeze(1)
        else:
            y, final_state = self.scan(u, dt, B, C, state, seq_idx, state_learns=learns and cache is not None)
            if cache is not None:
                cache.update_recurrent_state(final_state, layer_idx=self.layer_idx)
        return project(self.out_proj, (y * self.act(gate)).to(hidden_states.dtype))

    def norm_selection(
        self, dt: torch.Tensor, B: torch.Tensor, C: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Leave what x_proj selects as it is: dt, (batch, length, dt_rank), and B and C, (batch, length, state)."""
        return dt, B, C

    def scan(
        self,
        u: torch.Tensor,
        dt: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        state: torch.Tensor | None,
        seq_idx: torch.Tensor | None,
        state_learns: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Read any number of tokens.

        Args:
            state_learns: Whether the final state is to carry a gradient, which the kernel's does not.

        Returns:
            The outputs, (batch, length, channels), and the final state, (batch, channels, state).
        """
        A = -torch.exp(self.A_log.float())
        kernels = kernels_for(u)
        # The kernel takes neither a state nor packed sequences.
        if kernels is None or state is not None or seq_idx is not None or state_learns:
            return selective_scan(u, dt, A, B, C, D=self.D, initial_state=state, seq_idx=seq_idx)
        # The kernel takes the step size in the dtype of `u`, and adds a bias to it in float32.
        bias = self.dt_proj.bias.float()
        y, final_state = kernels.selective_scan(
            u.mT, (dt - bias).to(u.dtype).mT, A, B.mT, C.mT, D=self.D.float(), delta_bias=bias, delta_softplus=True,
            return_last_state=True,
        )  # fmt: skip
        return y.mT, final_state

    def step(
        self, state: torch.Tensor, u: torch.Tensor, dt: torch.Tensor, B: torch.Tensor, C: torch.Tensor
    ) -> torch.Tensor:
        """Read one token, (batch, channels) -> the same shape, and change the cached state in place."""
        A = -torch.exp(self.A_log.float())
        kernels = kernels_for(u)
        if kernels is None:
            return selective_step(state, u, dt, A, B, C, D=self.D)
        no_bias = torch.zeros_like(self.dt_proj.bias)  # `dt` has it already; mamba-ssm 2.3.2 fails without one
        return kernels.state_update(state, u, dt, A, B, C, D=self.D, dt_bias=no_bias, dt_softplus=True)


class FalconMambaMacMixer(MambaMacMixer):
    """The token mixer of Falcon-Mamba, which applies an RMSNorm without weights to dt, B and C."""

    def norm_selection(
        self, dt: torch.Tensor, B: torch.Tensor, C: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        dt, B, C = (part * inverse_rms(part.float(), self.config.mixer_rms_eps).to(part.dtype) for part in (dt, B, C))
        return dt, B, C


class SelectiveBlock(GradientCheckpointingLayer):
    """A norm, a mixer and a residual; unlike the block of transformers it passes `seq_idx` on to its mixer."""

    def __init__(self, config: MambaConfig, mixer: MambaMacMixer):
        super().__init__()
        self.residual_in_fp32 = config.residual_in_fp32
        self.norm = RMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mixer = mixer

    def forward(
        self,
        hidden_states: torch.Tensor,
        cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        seq_idx: torch.Tensor | None = None,
    ) -> torch.Tensor:
        normed = self.norm(hidden_states.to(self.norm.weight.dtype))
        residual = hidden_states.float() if self.residual_in_fp32 else hidden_states
        return residual + self.mixer(normed, cache=cache, attention_mask=attention_mask, seq_idx=seq_idx)


class MambaMacModel(MambaModel):
    """`MambaModel` on the scan of this package; weights and config are interchangeable."""

    mixer_class = MambaMacMixer
    # Decay rates and step sizes stand in an exponent: rounded to half precision they would change how long the state
    # lasts.
    _keep_in_fp32_modules_strict = {"A_log", "dt_proj"}
    _no_split_modules = ["SelectiveBlock"]

    def __init__(self, config: MambaConfig):
        super().__init__(config)
        mixers = [self.mixer_class(config, index) for index in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList([SelectiveBlock(config, mixer) for mixer in mixers])
        self.norm_f = RMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.post_init()

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that transformers initialises modules without weights of their own, as in its own models."""
        return False

    def get_correct_attn_implementation(self, *args: Any, **kwargs: Any) -> str:
        """This model has no attention: whatever the encoder beside it takes may be named."""
        return "eager"

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        attention_mask: torch.Tensor | None = None,
        seq_idx: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> tuple | MambaOutput:
        """
        Run the model as `MambaModel.forward` does; packed sequences may be given, too.

        Args:
            attention_mask: Mask of the tokens of this call, (batch, length), 0 at padding.
            seq_idx: Number of the packed sequence that each token belongs to, (batch, length) int32.

        The other arguments are those of `MambaModel.forward`. A cache that is made here is a `StateCache`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        use_cache = use_cache if use_cache is not None else self.config.use_cache and not self.training
        if self.gradient_checkpointing and self.training:
            use_cache = False
        if use_cache and cache is None:
            cache = StateCache(self.config)
        hidden_states = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        layers: list[torch.Tensor] = []
        for block in self.layers:
            hidden_states = block(hidden_states, cache=cache, attention_mask=attention_mask, seq_idx=seq_idx)
            layers.append(hidden_states)
        hidden_states = self.norm_f(hidden_states)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        outputs = MambaOutput(
            last_hidden_state=hidden_states,
            cache=cache if use_cache else None,
            hidden_states=(*layers, hidden_states) if wanted else None,
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs if return_dict else outputs.to_tuple()


class FalconMambaMacModel(MambaMacModel):
    """`FalconMambaModel` on the scan of this package; weights and config are interchangeable."""

    config: FalconMambaConfig
    mixer_class = FalconMambaMacMixer


__all__ = ["FalconMambaMacModel", "MambaMacModel"]

"""The states of Mamba-1 and Mamba-2 between calls: transformers' cache, whose beams are reordered where they lie."""

import torch
from transformers.cache_utils import DynamicCache, LinearAttentionLayer
from transformers.configuration_utils import PreTrainedConfig


class StateLayer(LinearAttentionLayer):
    """
    The convolution's last inputs, (batch, channels, kernel), and the state, (batch, heads, head_dim, state) of Mamba-2
    and (batch, channels, state) of Mamba-1.

    In memory all channels of a token, and all heads of a state entry, lie together: decoding reads them so.
    """

    def lazy_initialization(
        self, conv_states: torch.Tensor | None = None, *args, state_idx: int = 0, **kwargs
    ) -> None:
        super().lazy_initialization(conv_states, *args, state_idx=state_idx, **kwargs)
        if conv_states is not None:
            states = self.conv_states[state_idx]
            channels, kernel = states.shape[1:]
            # Not the view `.mT`: one that is made without gradients cannot be written with them.
            states = states.new_empty_strided(states.shape, (channels * kernel, 1, channels)).zero_()
            self.conv_states[state_idx] = states
            if not torch.compiler.is_compiling():
                torch._dynamo.mark_static_address(self.conv_states[state_idx])

    def update_recurrent_state(self, recurrent_states: torch.Tensor, state_idx: int = 0, **kwargs) -> torch.Tensor:
        if self.is_recurrent_states_initialized[state_idx] and not recurrent_states.requires_grad:
            return super().update_recurrent_state(recurrent_states, state_idx, **kwargs)
        self.recurrent_states[state_idx] = recurrent_states  # fresh from the scan, and of its graph: kept, not copied
        self.is_recurrent_states_initialized[state_idx] = True
        if not torch.compiler.is_compiling():
            torch._dynamo.mark_static_address(recurrent_states)
        return recurrent_states

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Other rows in new tensors of the same layout."""
        for states in (self.conv_states, self.recurrent_states):
            for index, tensor in states.items():
                if tensor is not None:
                    rows = tensor.movedim(-1, 1).index_select(0, beam_idx.to(tensor.device))
                    states[index] = rows.movedim(1, -1)

    def move_rows(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy the rows `source` of the batch over the rows `target`, all as they were before."""
        for states in (*self.conv_states.values(), *self.recurrent_states.values()):
            if states is None:
                continue
            if states.device.type != "cpu":
                states[target] = states[source]
                continue
            # Row by row a CPU is several times as fast as by gathering and scattering.
            pairs = list(zip(source.tolist(), target.tolist(), strict=True))
            kept = {row: states[row].clone() for row in {here for here, _ in pairs} & {there for _, there in pairs}}
            for here, there in pairs:
                states[there].copy_(kept.get(here, states[here]))


class StateCache(DynamicCache):
    """A cache of `StateLayer`s."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config=config)
        self.layers: list[StateLayer] = [StateLayer() for _ in range(config.num_hidden_layers)]

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Beam i continues what beam `beam_idx[i]` was; only beams that change are copied, where they lie."""
        states = self.layers[0].recurrent_states[0]
        if states is None or len(states) != len(beam_idx):  # another number of beams needs other tensors
            return super().reorder_cache(beam_idx)
        beam_idx = beam_idx.to(states.device)
        target = (beam_idx != torch.arange(len(beam_idx), device=states.device)).nonzero().squeeze(1)
        if len(target):
            for layer in self.layers:
                layer.move_rows(beam_idx[target], target)


__all__ = ["StateCache"]

"""
The cache of Mamba-1 and Mamba-2: what the layers remember from one call to the next.

It is transformers' cache with two changes for speed: its memory layout, and beams that are reordered in place.
"""

import copy

import torch
from transformers.cache_utils import DynamicCache, LinearAttentionLayer
from transformers.configuration_utils import PreTrainedConfig


class StateLayer(LinearAttentionLayer):
    """
    The cache of one layer.

    It holds the last inputs of the convolution, (batch, channels, kernel), and the state of the scan, which is
    (batch, heads, head_dim, state) for Mamba-2 and (batch, channels, state) for Mamba-1.

    In memory all channels of a token lie together, and so do all heads of a state entry, because decoding reads them
    in this order.
    """

    def lazy_initialization(
        self, conv_states: torch.Tensor | None = None, *args, state_idx: int = 0, **kwargs
    ) -> None:
        super().lazy_initialization(conv_states, *args, state_idx=state_idx, **kwargs)
        if conv_states is not None:
            states = self.conv_states[state_idx]
            channels, kernel = states.shape[1:]
            # A tensor of its own and not the view `.mT` of another one: autograd refuses to change a view in place
            # with gradients if it was made without them.
            states = states.new_empty_strided(states.shape, (channels * kernel, 1, channels)).zero_()
            # (batch, channels, kernel), channels contiguous
            self.conv_states[state_idx] = states
            if not torch.compiler.is_compiling():
                # As transformers does it for its own caches: a CUDA graph of torch.compile may then read it here.
                torch._dynamo.mark_static_address(self.conv_states[state_idx])

    def update_recurrent_state(self, recurrent_states: torch.Tensor, state_idx: int = 0, **kwargs) -> torch.Tensor:
        if self.is_recurrent_states_initialized[state_idx] and not recurrent_states.requires_grad:
            return super().update_recurrent_state(recurrent_states, state_idx, **kwargs)
        # The scan has just made this tensor, and it may belong to the autograd graph: it is kept and not copied.
        self.recurrent_states[state_idx] = recurrent_states
        self.is_recurrent_states_initialized[state_idx] = True
        if not torch.compiler.is_compiling():
            torch._dynamo.mark_static_address(recurrent_states)
        return recurrent_states

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Gather the rows `beam_idx`, (new batch,), into new tensors of the same memory layout."""
        for states in (self.conv_states, self.recurrent_states):
            for index, tensor in states.items():
                if tensor is not None:
                    # Moved so that the axes stand in the order of the memory: the copy then keeps this order.
                    rows = tensor.movedim(-1, 1).index_select(0, beam_idx.to(tensor.device))
                    states[index] = rows.movedim(1, -1)

    def empty_like(self) -> "StateLayer":
        """A layer that has read as much, with states of the same shape, dtype and layout, but of whichever values."""
        made = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict):
                setattr(made, name, dict(value))
        for states in (made.conv_states, made.recurrent_states):
            for index, tensor in states.items():
                states[index] = None if tensor is None else torch.empty_like(tensor)
        return made

    def move_rows(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy the batch's rows `source`, (rows,), over its rows `target`, (rows,), as if all were read before."""
        for states in (*self.conv_states.values(), *self.recurrent_states.values()):
            if states is None:
                continue
            if states.device.type != "cpu":
                states[target] = states[source]
                continue
            # A CPU copies row by row several times as fast as it gathers and scatters.
            pairs = list(zip(source.tolist(), target.tolist(), strict=True))
            kept = {row: states[row].clone() for row in {here for here, _ in pairs} & {there for _, there in pairs}}
            for here, there in pairs:
                states[there].copy_(kept.get(here, states[here]))


class StateCache(DynamicCache):
    """A cache with one `StateLayer` for every layer of the language model."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config=config)
        self.layers: list[StateLayer] = [StateLayer() for _ in range(config.num_hidden_layers)]

    def empty_like(self) -> "StateCache":
        """A cache of layers that have read as much, but whose states have whichever values."""
        made = copy.copy(self)
        made.layers = [layer.empty_like() for layer in self.layers]
        return made

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """
        Let beam i go on from the state of beam `beam_idx[i]`; only the beams that change are copied, in place.

        Args:
            beam_idx: Row of the batch that each beam continues, (beams,).
        """
        states = self.layers[0].recurrent_states[0]
        if states is None or len(states) != len(beam_idx):  # another number of beams needs tensors of another size
            return super().reorder_cache(beam_idx)
        beam_idx = beam_idx.to(states.device)
        target = (beam_idx != torch.arange(len(beam_idx), device=states.device)).nonzero().squeeze(1)
        if len(target):
            for layer in self.layers:
                layer.move_rows(beam_idx[target], target)


__all__ = ["StateCache"]

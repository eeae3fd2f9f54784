"""
One token through the blocks of Mamba-2 on a CUDA device, captured once in a CUDA graph and then replayed.

Launched one by one, the hundreds of small kernels of a token take longer to launch than to run; a graph launches them
all at once. It reads and writes the same memory at every replay. So a graph has states of its own, which are lent to
one cache at a time.
"""

import copy
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.models.mamba2.modeling_mamba2 import Mamba2Block

from .cache_mac import StateCache, StateLayer
from .linear_mac import is_hooked
from .norm_mac import GatedRMSNorm, RMSNorm


GRAPH_DEVICE = "cuda"
MOST_GRAPHS = 4  # that are kept of a model, each with the states of as many rows as it was captured for
# Parts of a block. Any other kind, such as an adapter that can be switched off, would do in a graph for ever what it
# did when that was captured.
PARTS = (nn.Linear, nn.Conv1d, RMSNorm, GatedRMSNorm)


def capture_on_cuda(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture what a function launches on a device, and return a function that launches all of it at once."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries and kernels are loaded before the capture
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on
            step()
    return graph.replay


def states_of(layer: StateLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """The convolution's and the scan's states of a layer that has read something."""
    return layer.conv_states[0], layer.recurrent_states[0]


def addresses(language_model: nn.Module) -> list[tuple[int, torch.dtype]]:
    """Where the weights lie that a graph reads, so that it is seen when others have taken their place."""
    return [(weight.data_ptr(), weight.dtype) for weight in language_model.parameters()]


def why_not_captured(language_model: Any) -> str | None:
    """Say why a step of this Mamba-2 must not be captured; None if it may be."""
    for block in language_model.layers:
        if type(block) is not Mamba2Block or any(map(is_hooked, block.modules())):
            return "a library has wrapped or hooked into the blocks of this one"
        mixer = block.mixer
        for part in (block.norm, mixer.in_proj, mixer.conv1d, mixer.norm, mixer.out_proj):
            if type(part) not in PARTS:
                return f"there is {type(part).__name__} in the blocks of this one"
    return None


class StepGraph:
    """
    A token through the blocks and the last norm, captured for one number of rows.

    Args:
        language_model: A Mamba-2.
        hidden_states: A token, (batch, 1, width).
        cache: A cache of the same number of rows; it is not changed.
    """

    def __init__(self, language_model: Any, hidden_states: torch.Tensor, cache: StateCache):
        self.weights = addresses(language_model)
        self.token = hidden_states.clone()
        self.cache = copy.deepcopy(cache)
        self.output: list[torch.Tensor] = []  # one, whose dtype the first run tells
        self.borrowers: list[weakref.ref[StateLayer]] = []  # layers of a cache that may be gone

        def step() -> None:
            token = self.token
            for block in language_model.layers:
                token = block(token, cache=self.cache)
            token = language_model.norm_f(token)
            if not self.output:
                self.output.append(torch.empty_like(token))
            self.output[0].copy_(token)

        self.replay = capture_on_cuda(step, hidden_states.device)

    def is_lent_to(self, cache: StateCache) -> bool:
        """Tell whether a cache holds the states that the graph reads and writes."""
        return all(
            theirs is ours
            for layer, own in zip(cache.layers, self.cache.layers, strict=True)
            for theirs, ours in zip(states_of(layer), states_of(own), strict=True)
        )

    def lend(self, cache: StateCache) -> None:
        """Copy the states of a cache into the graph's, and let the cache hold these."""
        self.take_back()
        for layer, own in zip(cache.layers, self.cache.layers, strict=True):
            for states, ours in zip((layer.conv_states, layer.recurrent_states), states_of(own), strict=True):
                ours.copy_(states[0])
                states[0] = ours
        self.borrowers = [weakref.ref(layer) for layer in cache.layers]

    def take_back(self) -> None:
        """Leave the cache that has the states copies of them, of those that it still holds."""
        for borrower, own in zip(self.borrowers, self.cache.layers, strict=False):
            if (layer := borrower()) is None:
                continue
            for states, ours in zip((layer.conv_states, layer.recurrent_states), states_of(own), strict=True):
                if states[0] is ours:
                    states[0] = ours.clone()
        self.borrowers = []

    def read(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Read a token, (batch, 1, width) -> the same shape, and change the states in place."""
        self.token.copy_(hidden_states)
        self.replay()
        return self.output[0].clone()


class StepGraphs:
    """The graphs of a model, made as they are needed; a copy of the model makes its own."""

    def __init__(self) -> None:
        self.graphs: OrderedDict[tuple, StepGraph] = OrderedDict()
        self.lock = threading.Lock()  # threads may decode with one model, by turns

    def __reduce__(self) -> tuple:
        return StepGraphs, ()

    def step_through(self, language_model: Any, hidden_states: torch.Tensor, cache: StateCache) -> torch.Tensor | None:
        """
        Run all blocks and the last norm on one token that follows those in the cache, for which `can_replay` said yes.

        Args:
            language_model: The Mamba-2 whose graphs these are.
            hidden_states: Input of the first block, (batch, 1, width).
            cache: Its cache.

        Returns:
            Output of the norm, (batch, 1, width), or None where modules must be called, since a library has wrapped,
            hooked or quantised them since.
        """
        key = (hidden_states.shape, hidden_states.dtype, hidden_states.device)
        with self.lock:
            graph = self.graphs.get(key)
            if graph is None or not graph.is_lent_to(cache):
                # Once for every cache: weights do not change in the middle of a caption.
                if why_not_captured(language_model):
                    return None
                # What a graph holds must outlive an inference mode.
                with torch.inference_mode(False), torch.no_grad():
                    graph = self.graph_for(key, language_model, hidden_states, cache)
                    graph.lend(cache)
            return graph.read(hidden_states)

    def graph_for(self, key: tuple, language_model: Any, hidden_states: torch.Tensor, cache: StateCache) -> StepGraph:
        """Find the graph of this key, or capture one where there is none or where the weights lie elsewhere now."""
        graph = self.graphs.get(key)
        if graph is not None and graph.weights != addresses(language_model):
            self.graphs.pop(key).take_back()
            graph = None
        if graph is None:
            graph = self.graphs[key] = StepGraph(language_model, hidden_states, cache)
        self.graphs.move_to_end(key)
        if len(self.graphs) > MOST_GRAPHS:
            self.graphs.popitem(last=False)[1].take_back()
        return graph


def can_replay(hidden_states: torch.Tensor, cache: StateCache) -> bool:
    """Tell whether these tokens, (batch, length, width), are one token after a cache that a graph could go on from."""
    return (
        hidden_states.shape[1] == 1
        and hidden_states.device.type == GRAPH_DEVICE
        and cache.has_previous_state(0, 0)
        and not cache.is_recording_past(0)
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled(GRAPH_DEVICE))
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
    )


__all__ = ["StepGraphs", "can_replay", "why_not_captured"]

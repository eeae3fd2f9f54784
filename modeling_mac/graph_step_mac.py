"""
One token through the blocks of Mamba-2 on a CUDA device, captured once in a CUDA graph and then replayed.

Launched one by one, the hundreds of small kernels of a token take longer to launch than to run; a graph launches them
all at once. It reads and writes the same memory at every replay, so the states of the cache that is decoded are copied
in before and out after it, in a few launches. No cache ever holds memory of a graph.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers.models.mamba2.modeling_mamba2 import Mamba2Block, Mamba2Mixer

from .cache_mac import StateCache
from .linear_mac import is_hooked
from .norm_mac import GatedRMSNorm, RMSNorm


logger = logging.getLogger(__name__)

GRAPH_DEVICE = "cuda"
MOST_GRAPHS = 8  # that are kept of a model, each with states of as many rows as it was captured for
# Parts of a block. Any other kind, such as an adapter that can be switched off, would do in a graph for ever what it
# did when that was captured.
PARTS = (nn.Linear, nn.Conv1d, RMSNorm, GatedRMSNorm)
CAPTURES = threading.Lock()  # CUDA captures one graph at a time


class CaptureError(RuntimeError):
    """A step launches what cannot be captured, or another thread made the device wait meanwhile."""


@lru_cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on a device: torch's own is of the first device that anything was captured on."""
    return torch.cuda.Stream(device)


def capture_on_cuda(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """
    Capture what a function launches on a device, and return a function that launches all of it at once.

    Raises:
        CaptureError: It cannot be captured.
    """
    stream = capture_stream(device)
    # The outer stream is there to come back to: where a capture fails, torch leaves the thread on the inner one.
    with CAPTURES, torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries and kernels are loaded before the capture
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # cuBLAS has a workspace for each stream, which torch frees when some graph of that stream goes. Cleared before
        # the capture it is made in the memory of this graph, and cleared after it no other takes it (private: torch's
        # own graphs of compiled models do so).
        torch._C._cuda_clearCublasWorkspaces()
        try:
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            raise CaptureError(str(error)) from error
        finally:
            torch._C._cuda_clearCublasWorkspaces()
    return graph.replay


def states_of(cache: StateCache) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The convolution's and the scan's states of all layers of a cache that has read something."""
    return [layer.conv_states[0] for layer in cache.layers], [layer.recurrent_states[0] for layer in cache.layers]


def copy_states(source: StateCache, target: StateCache) -> None:
    """Copy the states of one cache over those of another."""
    for these, those in zip(states_of(source), states_of(target), strict=True):
        torch._foreach_copy_(those, these)  # private, but the only way to copy many tensors in few launches


class Captured:
    """The modules and parameters that a graph has captured, so that it is seen when others take their place."""

    def __init__(self, language_model: Any):
        self.root = language_model._modules
        self.layers, self.norm = language_model.layers, language_model.norm_f
        self.parts = [*self.layers.modules(), *self.norm.modules()]
        self.children = [(part._modules, dict(part._modules)) for part in self.parts]
        self.parameters = [
            (part._parameters, name, weight.data_ptr())
            for part in self.parts
            for name, weight in part._parameters.items()
            if weight is not None
        ]

    def is_there(self) -> bool:
        """Tell whether all stand where they stood, without a hook."""
        return (
            self.root["layers"] is self.layers
            and self.root["norm_f"] is self.norm
            and all(now == then for now, then in self.children)
            and not any(map(is_hooked, self.parts))
            and all(
                (weight := weights.get(name)) is not None and weight.data_ptr() == place
                for weights, name, place in self.parameters
            )
        )


def why_not_captured(language_model: Any) -> str | None:
    """Say why a step of this Mamba-2 must not be captured; None if it may be."""
    blocks = list(language_model.layers)
    parts = [language_model.norm_f]
    for block in blocks:
        if type(block) is not Mamba2Block or not isinstance(block.mixer, Mamba2Mixer):
            return "a library has wrapped the blocks of this one"
        mixer = block.mixer
        parts += [block.norm, mixer.in_proj, mixer.conv1d, mixer.norm, mixer.out_proj]
    for part in parts:
        if type(part) not in PARTS:
            return f"there is {type(part).__module__}.{type(part).__name__} in this one"
        if odd := [weight for weight in part.parameters(recurse=False) if type(weight) is not nn.Parameter]:
            return f"there are weights of the kind {type(odd[0]).__name__} in this one"
    if any(is_hooked(module) for part in (*blocks, language_model.norm_f) for module in part.modules()):
        return "a library has hooked into this one"
    return None


class StepGraph:
    """
    A token through the blocks and the last norm, captured for one number of rows.

    Args:
        language_model: A Mamba-2.
        hidden_states: A token, (batch, 1, width).
        cache: A cache of the same number of rows; it is not changed.

    Raises:
        CaptureError: It cannot be captured.
    """

    def __init__(self, language_model: Any, hidden_states: torch.Tensor, cache: StateCache):
        blocks, norm = list(language_model.layers), language_model.norm_f
        self.captured = Captured(language_model)
        self.token, self.cache = hidden_states.clone(), cache.empty_like()
        self.output: list[torch.Tensor] = []  # one, whose dtype the first run tells
        copy_states(cache, self.cache)

        def step() -> None:
            token = self.token
            for block in blocks:
                token = block(token, cache=self.cache)
            token = norm(token)
            if not self.output:
                self.output.append(torch.empty_like(token))
            self.output[0].copy_(token)

        self.replay = capture_on_cuda(step, hidden_states.device)

    def read(self, hidden_states: torch.Tensor, cache: StateCache) -> torch.Tensor:
        """Read a token after those in the cache, (batch, 1, width) -> the same shape, and change its states."""
        self.token.copy_(hidden_states)
        copy_states(cache, self.cache)
        self.replay()
        copy_states(self.cache, cache)
        return self.output[0].clone()


class StepGraphs:
    """The graphs of a model, made as they are needed; a copy of the model makes its own."""

    def __init__(self) -> None:
        self.graphs: OrderedDict[tuple, StepGraph] = OrderedDict()
        self.lock = threading.Lock()  # threads may decode with one model, by turns
        self.fails = False

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
            hooked or quantised them since, or since no graph could be captured, of which a warning told.
        """
        with self.lock:
            graph = self.graph_for(language_model, hidden_states, cache)
            return None if graph is None else graph.read(hidden_states, cache)

    def graph_for(self, language_model: Any, hidden_states: torch.Tensor, cache: StateCache) -> StepGraph | None:
        """Find the graph for such a token, or capture one where there is none or other weights have come."""
        kinds = [(states[0].shape, states[0].stride(), states[0].dtype) for states in states_of(cache)]
        key = (hidden_states.shape, hidden_states.dtype, current_stream(hidden_states.device), *kinds)
        graph = self.graphs.get(key)
        if graph is not None and not graph.captured.is_there():
            graph = None
            self.graphs.clear()  # the others hold what is gone, too
        if graph is None:
            if self.fails or why_not_captured(language_model):
                return None
            try:
                # What a graph holds must outlive an inference mode.
                with torch.inference_mode(False), torch.no_grad():
                    graph = self.graphs[key] = StepGraph(language_model, hidden_states, cache)
            except (CaptureError, torch.OutOfMemoryError) as error:
                logger.warning("No more tokens are captured as CUDA graphs, since one could not be: %s", error)
                self.fails = True
                return None
            if len(self.graphs) > MOST_GRAPHS:
                self.graphs.popitem(last=False)
        self.graphs.move_to_end(key)
        return graph


def current_stream(device: torch.device) -> tuple[torch.device, int]:
    """A device and the number of the stream that it runs what this thread launches on."""
    return device, torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def can_replay(hidden_states: torch.Tensor, cache: StateCache) -> bool:
    """Tell whether these tokens, (batch, length, width), are one token after a cache that a graph could go on from."""
    return (
        hidden_states.shape[1] == 1
        and hidden_states.device.type == GRAPH_DEVICE
        and cache.has_previous_state(0, 0)
        and not cache.is_recording_past(0)
        and not cache.layers[0].recurrent_states[0].requires_grad
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled(GRAPH_DEVICE))
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and not (GRAPH_DEVICE == "cuda" and torch.cuda.is_current_stream_capturing())
    )


__all__ = ["StepGraphs", "can_replay", "why_not_captured"]

"""Lets a Mamba-2 decode as one piece: on a CPU in C++, on a CUDA device as a graph."""

import logging
from typing import Any

import torch
from torch import nn

from .decode_step_mac import weights_of
from .graph_step_mac import GRAPH_DEVICE, StepGraphs, why_not_captured
from .int8_mac import Int8Linear


logger = logging.getLogger(__name__)


@torch.no_grad()
def compile_decoding(model: nn.Module) -> None:
    """
    Let a Mamba-2 decode as one piece: on a CUDA device as a graph, on a CPU with weights of 8 bits in C++.

    **CUDA**: the first decoded token of each number of rows, of a batch or of beams, is run once and captured. All
    that follow are launched at once. The last `MOST_GRAPHS` graphs are kept, each with states for its rows. Where one
    cannot be captured a warning says so, and no more are.

    **CPU**: the first decoded token compiles for some seconds, and so do the first ones with several rows; more than
    eight are not compiled, since that would be slower. Without a C++ compiler everything stays as it was, and a
    warning says so.

    Where an adapter or a hook is added later, decoding goes on as before.

    Raises:
        ValueError: The model has no Mamba-2, or a library has put other layers into its blocks. Or it is on a CPU and
            not multiplied in 8 bits: in float32 nothing would be gained, since torch's compiler would multiply by
            another library, which takes longer.
    """
    language_models: list[Any] = [module for module in model.modules() if hasattr(module, "decodes_compiled")]
    if not language_models:
        raise ValueError("Only a Mamba-2 decodes as one piece, and there is none in this model.")
    captured = [one for one in language_models if next(one.parameters()).device.type == GRAPH_DEVICE]
    compiled = [one for one in language_models if one not in captured]
    if reasons := [reason for one in captured if (reason := why_not_captured(one))]:
        raise ValueError(
            f"Only a Mamba-2 with layers of torch's own decodes as a CUDA graph, and {reasons[0]}: leave out what "
            "changed them, such as an adapter or `--int8`, or put it on the CPU."
        )
    if reasons := [reason for one in compiled if (reason := why_not_compiled(one))]:
        raise ValueError(f"On a CPU only a Mamba-2 with large layers of 8 bits decodes in C++, and {reasons[0]}.")
    for language_model in captured:
        language_model.step_graphs = StepGraphs()
    if compiled and not has_compiler():
        logger.warning(
            "There is no C++ compiler, so decoding is not compiled: install g++ or clang++, or name one in the "
            "environment variable CXX."
        )
        return
    for language_model in compiled:
        language_model.decodes_compiled = True


def why_not_compiled(language_model: Any) -> str | None:
    """Say why a language model cannot be compiled on a CPU; None if it can."""
    block = language_model.layers[0]
    layer = block.mixer.in_proj
    if not isinstance(layer, Int8Linear):
        return "the layers of this one are no layers of 8 bits: round them by `to_int8()`, `--int8`"
    if layer.weight.device.type != "cpu":
        return f"this one is on {layer.weight.device}: put it on the CPU"
    if block.norm.weight.dtype != torch.float32:
        return f"what is not of 8 bits is {block.norm.weight.dtype} in this one: load it in float32"
    if not layer.fits(1):
        return f"the layers of this one are too small or too odd to gain by it: {tuple(layer.weight.shape)}"
    if weights_of(block, 1, compiled=True) is None:
        return "the blocks of this one do more than that: an adapter, a hook or another activation"
    return None


def has_compiler() -> bool:
    """Tell whether torch's compiler finds a C++ compiler."""
    # Imported here, since it takes a second. It is private, but the only place that knows where torch looks.
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True


__all__ = ["compile_decoding"]

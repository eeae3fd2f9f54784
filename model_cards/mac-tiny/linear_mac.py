"""
Linear layers without gradients on a CPU, by a faster product than that of `nn.Linear`.

That of few rows, as decoding has them, should take no longer than reading the weights from memory; the usual order of
the factors does not reach that.
"""

from typing import NamedTuple

import torch
from torch import nn

from .int8_mac import Int8Linear, multiply_int8
from .product_mac import product


def project(layer: nn.Module, input: torch.Tensor, gelu: bool = False) -> torch.Tensor:
    """
    Return `layer(input)`, (..., in) -> (..., out), or its exact GELU, and compute it faster in float32 on a CPU.

    Training, half precision, compiled graphs and layers that are more than a plain `nn.Linear` (LoRA, quantised,
    hooked) are called as they are. This is a function and not a layer type of its own, since quantisers look for
    layers of exactly the type `nn.Linear`.

    Args:
        layer: Linear layer, or whatever has taken its place.
        input: Rows to multiply, (..., in).
        gelu: Whether to take the GELU of the output.
    """
    # First of all, since the number of rows must not become a constant of an exported graph.
    in_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
    plain = not in_graph and input.dtype == torch.float32 and input.device.type == "cpu"
    factors = factors_of(layer, input.shape[:-1].numel()) if plain else None
    if factors is None:
        output = layer(input)
        return nn.functional.gelu(output) if gelu else output
    # (rows, in), contiguous: oneDNN multiplies rows with gaps between them by its slow reference code, and the
    # operator on 8 bits reads past them.
    rows = input.reshape(-1, input.shape[-1]).contiguous()
    return multiply(rows, factors, gelu).view(*input.shape[:-1], -1)


class Factors(NamedTuple):
    """
    What a linear layer is made of.

    Args:
        weight: (out, in)
        bias: (out,), or None.
        scale: Scales of a weight of 8 bits, (out,), and
        ones: as many ones, as `multiply_int8` takes them, and
        packed: a copy of the weight, which it takes where there is one.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: torch.Tensor | None = None
    ones: torch.Tensor | None = None
    packed: torch.Tensor | None = None


def factors_of(layer: nn.Module, rows: int, compiled: bool = False) -> Factors | None:
    """
    Take a layer apart for `multiply`, which is for inference in float32 on a CPU.

    Args:
        layer: Linear layer, or whatever has taken its place.
        rows: Number of rows to multiply.
        compiled: Whether torch's compiler takes the tensors, which cannot read packed ones.

    Returns:
        Its tensors, or None where the layer must be called: for so many rows, or since it is more than they are.
    """
    if is_hooked(layer) or torch.is_grad_enabled():
        return None
    if isinstance(layer, Int8Linear):
        if not layer.fits(rows):
            return None
        packed = None if compiled else layer.packed(rows)
        return Factors(layer.weight, layer.bias, layer.weight_scale, layer.ones, packed)
    if not (
        type(layer) is nn.Linear
        and rows > 0
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
        and type(layer.weight) in (nn.Parameter, torch.Tensor)
    ):
        return None
    return Factors(layer.weight, layer.bias)


def multiply(rows: torch.Tensor, factors: Factors, gelu: bool = False) -> torch.Tensor:
    """Return the layer's output or its GELU for contiguous rows, (rows, in) -> (rows, out), contiguous, in float32."""
    weight, bias, scale, ones, packed = factors
    if scale is None or ones is None:
        return product(rows, weight, bias, gelu)
    output = multiply_int8(rows, weight, scale, ones, packed).to(rows.dtype)
    output = output if bias is None else output + bias
    return nn.functional.gelu(output) if gelu else output


def project_by_modality(
    text: nn.Module, audio: nn.Module | None, input: torch.Tensor, is_audio: torch.Tensor | None
) -> torch.Tensor:
    """
    Project every token by the layer of its modality (Mixture-of-Mamba, arXiv 2501.16295), each token once.

    Args:
        text: Layer of the text, which serves all tokens where there is no other.
        audio: Layer of the audio, of the same size; None if the modalities share one.
        input: Tokens, (batch, length, in).
        is_audio: Whether a token is audio, (batch, length); None where all are text, as in decoding.

    Returns:
        (batch, length, out), in the dtype of the layers' outputs, which autocast may have changed.
    """
    if audio is None or is_audio is None:
        return project(text, input)
    is_audio = is_audio.to(input.device)
    spoken = project(text, input[~is_audio])  # (text tokens, out)
    output = spoken.new_empty(*input.shape[:-1], spoken.shape[-1])
    output[~is_audio] = spoken
    output[is_audio] = project(audio, input[is_audio])
    return output


def is_hooked(module: nn.Module) -> bool:
    """Tell whether a library has hooked into a module: by private fields of torch, or a `forward` on the instance."""
    return bool(module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module))


def as_weight(input: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Return `input` in the dtype of the layer's weight; for a quantised layer, which casts by itself, unchanged."""
    dtype = getattr(layer.weight, "dtype", None)
    return input.to(dtype) if dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64) else input


__all__ = ["Factors", "as_weight", "factors_of", "is_hooked", "multiply", "project", "project_by_modality"]

"""
Linear layers on few rows, as decoding has them, on a CPU.

Such a product should take no longer than reading the weights from memory; the usual order of the factors does not
reach that.
"""

from typing import TypeGuard

import torch
from torch import nn


FEW_ROWS = 64  # rows; with more of them both orders of the product take the same time


def project(layer: nn.Module, input: torch.Tensor) -> torch.Tensor:
    """
    Return `layer(input)`, (..., in) -> (..., out), and compute it faster where there are few rows.

    On CPUs the usual product `x W^T` of a few rows is slow, because the kernels divide the work along the rows. Here
    it is computed as `(W x^T)^T`, so that the work is divided along the weights. Training, half precision, compiled
    graphs and layers that are more than a plain `nn.Linear` (LoRA, quantised, hooked) are called as they are. This is
    a function and not a layer type of its own, since quantisers look for layers of exactly the type `nn.Linear`.

    Args:
        layer: Linear layer, or whatever has taken its place.
        input: Rows to multiply, (..., in).
    """
    if not is_plain(layer, input) or not 0 < (rows := input.shape[:-1].numel()) <= FEW_ROWS:
        return layer(input)
    # (rows, in), contiguous: oneDNN multiplies rows with gaps between them by its slow reference code.
    flat = input.reshape(rows, -1).contiguous()
    if torch.backends.mkldnn.is_available():
        # A private operator of torch, which its compiler calls, too. It runs oneDNN's product in float32, for which
        # `nn.functional.linear` takes another library.
        output = torch.ops.mkldnn._linear_pointwise(layer.weight, flat, None, "none", [], "").t()  # (rows, out)
    else:
        output = torch.mm(layer.weight, flat.t()).t()
    if layer.bias is not None:
        output = output + layer.bias
    return output.contiguous().view(*input.shape[:-1], -1)


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


def is_plain(layer: nn.Module, input: torch.Tensor) -> TypeGuard[nn.Linear]:
    """Tell whether this is inference in float32 on a CPU by a layer that nobody has wrapped, hooked or quantised."""
    return (
        type(layer) is nn.Linear
        and not torch.is_grad_enabled()
        and input.device.type == "cpu"
        and input.dtype == layer.weight.dtype == torch.float32
        and type(layer.weight) in (nn.Parameter, torch.Tensor)
        # Private fields of `nn.Module` and a `forward` on the instance: the three places where a library hooks in.
        and not (layer._forward_pre_hooks or layer._forward_hooks or "forward" in vars(layer))
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
    )


def as_weight(input: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Return `input` in the dtype of the layer's weight; for a quantised layer, which casts by itself, unchanged."""
    dtype = getattr(layer.weight, "dtype", None)
    return input.to(dtype) if dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64) else input


__all__ = ["as_weight", "project", "project_by_modality"]

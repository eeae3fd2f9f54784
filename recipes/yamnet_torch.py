"""
YAMNet in torch, so that a teacher of everyday sounds can hear many scenes at once on a GPU.

YAMNet (Google, Apache-2.0) is a MobileNet that tells AudioSet's classes from log-mels. Its weights are read from the
TFLite file by `ai-edge-litert`, those of 8 bits are scaled back. The file computes the spectrum with matrices of 8
bits; here it is the exact Fourier transform. By that its embeddings of ESC-50 differ by some 8 % of their variance,
most behind pure tones, and name its recordings as well.
"""

import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


RATE = 16_000  # Hz
FRAME, SHIFT, FFT = 400, 160, 512  # samples: 25 ms, 10 ms
PATCH, MELS = 96, 64  # frames and mel bins that one embedding is told from
HOP = 48  # frames from one embedding to the next, half of what an embedding is told from
WIDTH = 1024  # size of an embedding
FLOOR = 1e-3  # added to the mel magnitudes before their logarithm
CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)  # of each layer's output
HALVING = (1, 3, 5, 7, 13)  # layers that halve frames and mel bins
SCOPE = "yamnet_frames"  # how the names of the file's tensors begin


class SamePadded(nn.Conv2d):
    """A convolution by 3 x 3 that pads as TensorFlow does: where it halves an even size, at the end alone."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 1):
        super().__init__(inputs, outputs, 3, stride, groups=groups)
        self.sides = (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(grid, self.sides))


class Yamnet(nn.Module):
    """
    YAMNet without its classes, with random weights until `load_yamnet` fills it.

    Args:
        dtype: Type in which its layers compute; the log-mel stays in float32.
    """

    window: torch.Tensor
    mel: torch.Tensor

    def __init__(self, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.register_buffer("window", torch.hann_window(FRAME))
        self.register_buffer("mel", torch.rand(FFT // 2 + 1, MELS) / FFT)
        layers: list[nn.Module] = [SamePadded(1, CHANNELS[0], 2), nn.ReLU()]
        for number, (inputs, outputs) in enumerate(pairwise(CHANNELS), start=2):
            stride = 2 if number in HALVING else 1
            layers += [SamePadded(inputs, inputs, stride, groups=inputs), nn.ReLU()]
            layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers).to(dtype)
        self.dtype = dtype
        self.requires_grad_(False)

    def log_mel(self, waves: torch.Tensor) -> torch.Tensor:
        """Compute the log-mel of waves (batch, samples) at 16 kHz, (batch, frames, 64)."""
        frames = waves.unfold(1, FRAME, SHIFT) * self.window
        return (torch.fft.rfft(frames, n=FFT).abs() @ self.mel + FLOOR).log()

    def embed(self, patches: torch.Tensor) -> torch.Tensor:
        """Tell the embeddings (n, 1024), none of them negative, of patches of log-mel (n, 96, 64)."""
        return self.layers(patches.to(self.dtype).unsqueeze(1)).float().mean((2, 3))

    @torch.no_grad()
    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """
        Hear waves.

        Args:
            waves: Samples at 16 kHz, (batch, samples), at least 15,600 of them.

        Returns:
            Square roots of the embeddings of every 0.48 s, (batch, embeddings, 1024) float32; the first is of the
            first 0.975 s.
        """
        patches = self.log_mel(waves).unfold(1, PATCH, HOP).mT  # (batch, embeddings, 96, 64)
        return self.embed(patches.flatten(0, 1)).sqrt().unflatten(0, patches.shape[:2])


def load_yamnet(path: Path, dtype: torch.dtype = torch.float32) -> Yamnet:
    """
    Load YAMNet from its TFLite file.

    Raises:
        ValueError: The file is missing or is another model, or `ai-edge-litert` is not installed.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected yamnet.tflite.")
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ValueError("The teacher needs ai-edge-litert: pip install ai-edge-litert") from error
    try:
        interpreter: Any = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        teacher = Yamnet()
        teacher.load_state_dict(read_weights(interpreter))
    except (ValueError, RuntimeError, KeyError) as error:  # by what is no TFLite file, and by other models
        raise ValueError(f"{path}: expected YAMNet as a TFLite file ({str(error).splitlines()[0]}).") from error
    teacher.dtype = dtype
    teacher.layers.to(dtype)
    return teacher.eval()


def read_weights(interpreter: Any) -> dict[str, torch.Tensor]:
    """
    Read the weights under the names of `Yamnet`.

    Raises:
        KeyError: A tensor is missing.
    """
    tensors = {one["name"]: one for one in interpreter.get_tensor_details()}

    def read(name: str) -> torch.Tensor:
        return torch.from_numpy(to_floats(interpreter, tensors[f"{SCOPE}/{name}"]))

    weights = {
        "window": read("tf_op_layer_Mul/Mul/y")[0],
        "mel": read("tf_op_layer_MatMul_2/MatMul_2").T.contiguous(),
        "layers.0.weight": read("layer1/conv/Conv2D").permute(0, 3, 1, 2),
        "layers.0.bias": read("layer1/conv/bn/FusedBatchNormV3"),
    }
    depthwise = {int(found[1]): name for name, one in tensors.items() if (found := is_depthwise(name, one["shape"]))}
    for layer in range(2, len(CHANNELS) + 1):
        place = 4 * layer - 6  # each layer but the first is two convolutions with a ReLU behind each
        weights[f"layers.{place}.weight"] = read(depthwise[layer].removeprefix(f"{SCOPE}/")).permute(3, 0, 1, 2)
        weights[f"layers.{place}.bias"] = read(f"layer{layer}/depthwise_conv/bn/FusedBatchNormV3")
        weights[f"layers.{place + 2}.weight"] = read(f"layer{layer}/pointwise_conv/Conv2D").permute(0, 3, 1, 2)
        weights[f"layers.{place + 2}.bias"] = read(f"layer{layer}/pointwise_conv/bn/FusedBatchNormV3")
    return weights


def is_depthwise(name: str, shape: Any) -> re.Match[str] | None:
    """Tell whether a tensor is the weight of a depthwise convolution; the match's group is the number of the layer."""
    if len(shape) != 4 or tuple(shape[:3]) != (1, 3, 3) or name.endswith("_dequantize"):
        return None
    return re.match(rf"{SCOPE}/layer(\d+)/depthwise_conv/bn/FusedBatchNormV3;", name)


def to_floats(interpreter: Any, tensor: dict[str, Any]) -> np.ndarray:
    """Give a constant tensor of the file in float32, those of 8 bits scaled back."""
    values = interpreter.get_tensor(tensor["index"])
    if values.dtype != np.int8:
        return np.array(values, np.float32)
    quantised = tensor["quantization_parameters"]
    axes = [1] * values.ndim
    axes[quantised["quantized_dimension"]] = -1
    offsets, scales = (quantised[name].reshape(axes) for name in ("zero_points", "scales"))
    return ((values.astype(np.float32) - offsets) * scales).astype(np.float32)


def choose_layout(teacher: Yamnet, patches: int) -> None:
    """Try both orders in memory of the grids of so many patches on a CUDA device, and keep the faster one."""
    trial = torch.randn(patches, PATCH, MELS, device=teacher.mel.device)
    seconds = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        teacher.to(memory_format=layout)
        for _ in range(2):  # the first one is for cuDNN's search
            torch.cuda.synchronize()
            start = time.perf_counter()
            with torch.no_grad():
                teacher.embed(trial)
            torch.cuda.synchronize()
            seconds[layout] = time.perf_counter() - start
    teacher.to(memory_format=min(seconds, key=lambda layout: seconds[layout]))

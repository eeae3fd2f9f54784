"""
The mean of a stage's last checkpoints as its result.

With the learning rate held (`lr_scheduler_type: constant_with_warmup`) weights wander about a good place; their mean
is nearer to it than any of them (Izmailov et al., 2018, arXiv 1803.05407).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file


def mean_weights(checkpoints: Sequence[Path]) -> dict[str, torch.Tensor]:
    """
    Average each tensor over the checkpoints; a count, such as batch norm's of its batches, is the latest one's.

    Args:
        checkpoints: Folders of the Trainer's checkpoints, the latest first.
    """
    mean = load_file(checkpoints[0] / "model.safetensors")
    for checkpoint in checkpoints[1:]:
        for name, tensor in load_file(checkpoint / "model.safetensors").items():
            if tensor.is_floating_point():
                mean[name] += tensor
    return {name: tensor / len(checkpoints) if tensor.is_floating_point() else tensor for name, tensor in mean.items()}

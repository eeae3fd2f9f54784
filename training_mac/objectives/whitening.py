"""
A start for a new encoder's patch embedding: the principal components of real patches, each at the same strength.

The level of a log-mel patch has some forty times the variance of anything else in it. A random projection hands on
little but this level, and gradient descent takes long to find the rest.
"""

from collections.abc import Sequence

import torch
from torch import nn

from modeling_mac.modeling_eat import EatEmbeddings


@torch.no_grad()
def whiten(layer: nn.Linear | nn.Conv2d, inputs: torch.Tensor, ridge: float) -> None:
    """
    Make the outputs of `layer` on `inputs`, (samples, features), uncorrelated with mean 0 and variance 1.

    Args:
        layer: Layer whose weights and bias are set in place.
        inputs: Samples of what the layer will read, (samples, features).
        ridge: Variance below which a component is taken for noise and not raised to 1.
    """
    mean = inputs.mean(dim=0)
    covariance = (inputs - mean).T @ (inputs - mean) / len(inputs)
    variances, components = torch.linalg.eigh(covariance)  # in ascending order of variance
    count = min(len(layer.weight), inputs.shape[1])
    whitening = (components / (variances.clamp(min=0) + ridge).sqrt()).T.flip(0)[:count]
    layer.weight[:count] = whitening.view(count, *layer.weight.shape[1:])
    assert layer.bias is not None
    layer.bias[:count] = -whitening @ mean


def whiten_patches(embeddings: EatEmbeddings, log_mels: Sequence[torch.Tensor]) -> None:
    """Whiten the encoder's patch embedding on normalised log-mels of at least a patch, (frames, mel bins) each."""
    size = embeddings.patch_size
    patches = [one.unfold(0, size, size).unfold(1, size, size).reshape(-1, size * size) for one in log_mels]
    whiten(embeddings.patch_embedding, torch.cat(patches), ridge=0.005)

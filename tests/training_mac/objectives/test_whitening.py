"""Whitened projections are white on what they were made from."""

import torch
from torch import nn

from modeling_mac import EatConfig, EatModel
from training_mac.objectives.whitening import whiten, whiten_patches


AUDIO = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "window_frames": 64,
}


def assert_white(outputs: torch.Tensor) -> None:
    torch.testing.assert_close(outputs.mean(0), torch.zeros(outputs.shape[1]), atol=1e-2, rtol=0)
    torch.testing.assert_close(torch.cov(outputs.T), torch.eye(outputs.shape[1]), atol=3e-2, rtol=0)


def test_outputs_are_uncorrelated() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2000, 1) * 5 + torch.randn(2000, 12) @ torch.randn(12, 12) + 3
    layer = nn.Linear(12, 8)
    whiten(layer, inputs, ridge=0.0)
    assert_white(layer(inputs))


def test_the_ridge_keeps_noise_small() -> None:
    torch.manual_seed(0)
    inputs = torch.cat([torch.randn(2000, 1), 0.001 * torch.randn(2000, 1)], dim=1)
    layer = nn.Linear(2, 2)
    whiten(layer, inputs, ridge=0.01)
    deviations = layer(inputs).std(0)
    assert deviations[0] > 0.9 and deviations[1] < 0.05


def test_patches() -> None:
    torch.manual_seed(0)
    embeddings = EatModel(EatConfig(**AUDIO)).embeddings
    log_mels = [torch.randn(frames, 128) + torch.randn(1) * 5 for frames in [64, 70, 79] * 60]
    whiten_patches(embeddings, log_mels)
    windows = torch.stack([log_mel[:64] for log_mel in log_mels])
    patches = embeddings.patch_embedding(windows.unsqueeze(1)).permute(0, 2, 3, 1).reshape(-1, 32)
    assert_white(patches)

"""
Teaching a new encoder to hear before it learns to speak: every span of a scene is named from its tokens.

Captions alone teach a randomly initialised encoder slowly, since most of their words do not depend on the sound. Here
each recording in a scene must be told from the mean of the tokens under it, so that the tokens that the connector
reads carry it. As in EAT's own training only a random part of the patches enters the encoder (arXiv 2401.03497,
section 3), which makes a step several times cheaper. The head is thrown away afterwards.
"""

from typing import Any

import torch
from torch import nn

from modeling_mac import EatModel
from modeling_mac.modeling_eat import EatEmbeddings
from training_mac.scenes import SILENCE_AND_NOISE


class SpanTagger(nn.Module):
    """
    Encoder with a linear head on span means.

    Args:
        audio_tower: An `EatModel`, trained in place.
        num_sources: Sources to tell apart.
        kept_patches: Patches of a window that enter the encoder in training; all in evaluation.
    """

    def __init__(self, audio_tower: EatModel, num_sources: int, kept_patches: int):
        super().__init__()
        self.audio_tower = audio_tower
        self.kept_patches = kept_patches
        hidden_size = audio_tower.config.hidden_size
        # Means over tokens differ little between sounds: without this a linear head learns very slowly.
        self.norm = nn.BatchNorm1d(hidden_size, affine=False)
        self.head = nn.Linear(hidden_size, num_sources)
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)

    def forward(
        self, input_features: torch.Tensor, spans: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            input_features: (windows, frames, mel bins).
            spans: (spans, 3): window, first patch row, end patch row.
            labels: (spans,) source ids.

        Returns:
            `loss`; `logits` (spans, sources).
        """
        rows, columns = self.audio_tower.config.grid
        patches = torch.arange(rows * columns, device=input_features.device).expand(len(input_features), -1)
        if self.training:
            patches = torch.rand(patches.shape, device=patches.device).argsort(dim=1)[:, : self.kept_patches]
        tokens = self.audio_tower(input_features, kept_patches=patches).last_hidden_state[:, 1:]
        window, first, end = spans.unbind(1)
        row = patches[window] // columns  # (spans, kept)
        inside = ((row >= first.unsqueeze(1)) & (row < end.unsqueeze(1))).to(tokens.dtype).unsqueeze(-1)
        means = (tokens[window] * inside).sum(1) / inside.sum(1).clamp(min=1)
        logits = self.head(self.norm(means))
        return {"loss": self.loss(logits, labels), "logits": logits}


@torch.no_grad()
def whiten_patches(embeddings: EatEmbeddings, log_mels: list[torch.Tensor], ridge: float = 0.005) -> None:
    """
    Start the patch embedding as the principal components of real patches, each with about the same variance.

    The level of a patch has some forty times the variance of anything else in it; a random projection hands on little
    but that, and gradient descent takes long to find the rest.

    Args:
        embeddings: The encoder's `EatEmbeddings`.
        log_mels: Normalised, (frames, mel bins) each, at least a patch long.
        ridge: Variance below which a component is taken for noise.
    """
    size, weight, bias = embeddings.patch_size, embeddings.patch_embedding.weight, embeddings.patch_embedding.bias
    assert bias is not None
    patches = torch.cat([one.unfold(0, size, size).unfold(1, size, size).reshape(-1, size * size) for one in log_mels])
    mean = patches.mean(dim=0)
    covariance = (patches - mean).T @ (patches - mean) / len(patches)
    variances, components = torch.linalg.eigh(covariance)  # ascending
    count = min(len(weight), size * size)
    whitening = (components / (variances + ridge).sqrt()).T.flip(0)[:count]
    weight[:count] = whitening.view(count, 1, size, size)
    bias[:count] = -whitening @ mean


class SpanCollator:
    """Scenes -> windows, their spans in patch rows, and the ids of their sources."""

    def __init__(self, sources: list[str], patch_size: int):
        self.source_ids = {source: index for index, source in enumerate(sources)}
        self.patch_size = patch_size

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        spans, labels = [], []
        for window, example in enumerate(examples):
            for first, end, source in example["spans"]:
                first, end = first // self.patch_size, max(end // self.patch_size, first // self.patch_size + 1)
                spans.append((window, first, end))
                labels.append(self.source_ids[source])
        return {
            "input_features": torch.cat([example["input_features"] for example in examples]),
            "spans": torch.tensor(spans),
            "labels": torch.tensor(labels),
        }


def list_sources(clips: list) -> list[str]:
    """
    The sources of a manifest, sorted.

    Raises:
        ValueError: a clip has none.
    """
    unnamed = [clip.audio for clip in clips if clip.source is None]
    if unnamed:
        raise ValueError(f"Training on tags needs a `source` for every clip; {unnamed[0]} has none.")
    return sorted({clip.source for clip in clips} | set(SILENCE_AND_NOISE))

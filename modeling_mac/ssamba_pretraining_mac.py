"""
SSAMBA's pretraining, in the scheme of SSAST (arXiv 2110.09784): masked patches are told apart and reconstructed.

The targets are the log-mel cells of the masked patches. One head must find, among all masked patches of a window, the
one that a token stands for, and the other head must give its cells. This file is not saved with a model, since
inference does not need it.
"""

import random
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_mac import SsambaConfig
from .modeling_ssamba import SsambaModel, SsambaPreTrainedModel
from .token_pruning_mac import gather_tokens


RECONSTRUCTION_WEIGHT = 10.0  # of the reconstruction in the loss, as in SSAST


@dataclass
class SsambaPreTrainingOutput(ModelOutput):
    """
    Args:
        loss: Sum of both losses, contrastive + 10 * reconstruction.
        contrastive: Cross-entropy of finding the own patch, in nats, a mean over all masked patches.
        reconstruction: Mean squared error of the cells of all masked patches.
        accuracy: Share of the masked patches whose own token fits them best, from 0 to 1.
    """

    loss: torch.Tensor | None = None
    contrastive: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    accuracy: torch.Tensor | None = None


def draw_mask(count: int, times: int, frequencies: int, generator: random.Random) -> list[int]:
    """
    Draw the patches to mask in one window, as upstream does it, as rising indices `f * times + t`.

    Square clusters are drawn, all of one side of 3 to 5 patches, until they hold more than `count` patches; the first
    `count` of these are taken. Patch 0 is never masked. A cluster that passes the end of a row goes on in the next.

    Args:
        count: Number of patches to mask.
        times: Number of patches along the time.
        frequencies: Number of patches along the frequency.
        generator: Source of the random choices.

    Raises:
        ValueError: So many patches cannot be masked.
    """
    patches = times * frequencies
    if not 0 < count < patches - 1:
        raise ValueError(f"{count} of {patches} patches to mask; expected 1 to {patches - 2}.")
    side = generator.randrange(3) + 3
    masked: set[int] = set()
    while len(masked) <= count:
        start = generator.randrange(patches)
        cluster = {start + times * row + column for row in range(side) for column in range(side)}
        masked |= {patch for patch in cluster if 0 < patch < patches}
    return sorted(masked)[:count]


class SsambaForPreTraining(SsambaPreTrainedModel):
    """The encoder with its two prediction heads; it reads patches that do not overlap."""

    def __init__(self, config: SsambaConfig):
        super().__init__(config)
        if config.stride != config.patch_size:
            raise ValueError(
                f"SSAMBA is pretrained on patches that do not overlap: `stride` is {config.stride}, `patch_size` "
                f"{config.patch_size}."
            )
        self.ssamba = SsambaModel(config)
        self.mask_embed = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        width, cells = config.hidden_size, config.patch_size**2
        self.contrastive_head, self.reconstruction_head = (
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, cells)) for _ in range(2)
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.xavier_normal_(self.mask_embed)

    def forward(
        self,
        input_features: torch.Tensor,
        contrastive_mask: torch.Tensor,
        reconstruction_mask: torch.Tensor | None = None,
    ) -> SsambaPreTrainingOutput:
        """
        Args:
            input_features: Normalised log-mel windows, (windows, frames, 128).
            contrastive_mask: Indices of the patches masked for the contrastive loss, (windows, masked).
            reconstruction_mask: Indices of those masked for the reconstruction, (windows, masked), which then takes a
                second pass, as upstream; if None, both losses share the first mask and one pass.
        """
        patches = self.patches(input_features)
        tokens = self.masked_tokens(input_features, contrastive_mask)
        predicted, targets = self.contrastive_head(tokens), gather_tokens(patches, contrastive_mask)
        fit = targets @ predicted.mT  # (windows, targets, predictions)
        own = torch.arange(fit.shape[1], device=fit.device).expand(len(fit), -1)
        contrastive = cross_entropy(fit.flatten(0, 1), own.flatten())
        if reconstruction_mask is not None:
            tokens = self.masked_tokens(input_features, reconstruction_mask)
            targets = gather_tokens(patches, reconstruction_mask)
        reconstruction = mse_loss(self.reconstruction_head(tokens), targets)
        return SsambaPreTrainingOutput(
            loss=contrastive + RECONSTRUCTION_WEIGHT * reconstruction,
            contrastive=contrastive,
            reconstruction=reconstruction,
            accuracy=(fit.argmax(1) == own).float().mean(),
        )

    def patches(self, input_features: torch.Tensor) -> torch.Tensor:
        """Cut the windows into the cells of every patch, (windows, frequencies * times, patch_size ** 2)."""
        side = self.config.patch_size
        return nn.functional.unfold(input_features.mT.unsqueeze(1), side, stride=side).mT

    def masked_tokens(self, input_features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Encode the windows with masked patches and return the tokens of these, (windows, masked, hidden_size)."""
        tokens = self.ssamba(input_features, mask, self.mask_embed, return_dict=True).last_hidden_state[:, 1:]
        frequencies = self.config.grid[1]
        frequency_major = tokens.unflatten(1, (-1, frequencies)).transpose(1, 2).flatten(1, 2)
        return gather_tokens(frequency_major, mask)


__all__ = ["SsambaForPreTraining", "draw_mask"]

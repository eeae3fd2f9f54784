"""
SSAMBA's pretraining (the scheme of SSAST, arXiv 2110.09784): masked patches are told apart and put back.

The masked patches' cells are the targets. One head must find, among all masked patches of its clip, the one that a
token stands for; the other must give its cells. It does not travel with a model: inference needs none of it.
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


RECONSTRUCTION_WEIGHT = 10.0


@dataclass
class SsambaPreTrainingOutput(ModelOutput):
    """
    Args:
        loss: Contrastive + 10 * reconstruction.
        contrastive, reconstruction: The two, means over all masked patches.
        accuracy: Share of masked patches whose own token fits them best.
    """

    loss: torch.Tensor | None = None
    contrastive: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    accuracy: torch.Tensor | None = None


def draw_mask(count: int, times: int, frequencies: int, generator: random.Random) -> list[int]:
    """
    Indices `f * times + t` of the patches to mask in one window, as upstream draws them, rising.

    Square clusters of one side, 3 to 5, until more than `count` patches are hit; of these the first. Patch 0 is never
    masked, and a cluster that passes the end of a row goes on in the next.

    Raises:
        ValueError: so many patches cannot be masked.
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
            contrastive_mask: (windows, masked) indices of `draw_mask`.
            reconstruction_mask: The same for the second loss, in a pass of its own as upstream has it; the first mask
                and the same pass if None.
        """
        patches = self.patches(input_features)
        tokens = self.masked_tokens(input_features, contrastive_mask)
        predicted, targets = self.contrastive_head(tokens), pick(patches, contrastive_mask)
        fit = targets @ predicted.mT  # (windows, targets, predictions)
        own = torch.arange(fit.shape[1], device=fit.device).expand(len(fit), -1)
        contrastive = cross_entropy(fit.flatten(0, 1), own.flatten())
        if reconstruction_mask is not None:
            tokens = self.masked_tokens(input_features, reconstruction_mask)
            targets = pick(patches, reconstruction_mask)
        reconstruction = mse_loss(self.reconstruction_head(tokens), targets)
        return SsambaPreTrainingOutput(
            loss=contrastive + RECONSTRUCTION_WEIGHT * reconstruction,
            contrastive=contrastive,
            reconstruction=reconstruction,
            accuracy=(fit.argmax(1) == own).float().mean(),
        )

    def patches(self, input_features: torch.Tensor) -> torch.Tensor:
        """The cells of every patch, (windows, frequencies * times, patch_size ** 2), frequency before time."""
        side = self.config.patch_size
        return nn.functional.unfold(input_features.mT.unsqueeze(1), side, stride=side).mT

    def masked_tokens(self, input_features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The encoder's tokens of the masked patches, (windows, masked, hidden_size)."""
        tokens = self.ssamba(input_features, mask, self.mask_embed, return_dict=True).last_hidden_state[:, 1:]
        frequencies = self.config.grid[1]
        frequency_major = tokens.unflatten(1, (-1, frequencies)).transpose(1, 2).flatten(1, 2)
        return pick(frequency_major, mask)


def pick(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(windows, tokens, width) at (windows, picked)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


__all__ = ["SsambaForPreTraining", "draw_mask"]

"""
An encoder that tells what a teacher hears, component by component, and what is heard by name.

Of the variance of YAMNet's embeddings 64 % is one direction, loudness, and 32 of 1,024 directions hold 89 %. What
tells kinds of sound apart lies in the directions behind: a regression on the first 32 names 66 % of ESC-50's fold 5,
one on 256 names 83 %. A mean squared error of embeddings hardly sees those. Here each principal component has the
variance 1, and a weight that falls slowly from one to the next.
"""

from collections.abc import Iterable

import torch
from torch import nn

from modeling_mac import EatModel
from training_mac.objectives.embeddings import SELDOM
from training_mac.objectives.tags import draw_parts


ROW_SECONDS = 0.16  # from one row of patches to the next
FIRST, STEP = 0.4875, 0.48  # seconds: the middle of what YAMNet's first embedding is of, and the step to the next
POWER = 0.25  # a component's weight is its variance to this power
SMALLEST = 1e-3  # added to deviations, for some of the embeddings' numbers are hardly ever other than 0
DROP_PATH = 0.05


class Components(nn.Module):
    """
    The principal components of a teacher's embeddings, all of variance 1.

    Args:
        width: Size of an embedding.
        count: Number of components.

    Attributes:
        mean: Mean of the embeddings, (width,).
        project: What makes components of embeddings less their mean, (width, components).
        weights: Weight of each component in the loss, 1 on average, (components,).
    """

    mean: torch.Tensor
    project: torch.Tensor
    weights: torch.Tensor

    def __init__(self, width: int, count: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("project", torch.zeros(width, count))
        self.register_buffer("weights", torch.ones(count))

    @torch.no_grad()
    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Find the components of the standardised embeddings of some batches, each (embeddings, width)."""
        total, squares, count = torch.zeros(()), torch.zeros(()), 0
        for batch in batches:
            batch = batch.double()
            total, squares = total.to(batch) + batch.sum(0), squares.to(batch) + batch.mT @ batch
            count += len(batch)
        mean = total / count
        covariance = squares / count - mean.unsqueeze(1) * mean
        deviation = covariance.diagonal().clamp(min=0).sqrt() + SMALLEST
        variances, directions = torch.linalg.eigh(covariance / deviation.unsqueeze(1) / deviation)
        kept = self.project.shape[1]
        variances, directions = variances.flip(0)[:kept].clamp(min=SMALLEST**2), directions.flip(1)[:, :kept]
        self.mean.copy_(mean)
        self.project.copy_(directions / variances.sqrt() / deviation.unsqueeze(1))
        weights = variances**POWER
        self.weights.copy_(weights / weights.mean())

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Give the components (..., components) of embeddings (..., width)."""
        return (embeddings - self.mean) @ self.project


class Pupil(nn.Module):
    """
    An encoder with two linear heads on the tokens of each row of patches, side by side.

    Args:
        audio_tower: Encoder, which is trained in place.
        components: What it tells of the teacher.
        tags: Number of tags.
    """

    def __init__(self, audio_tower: EatModel, components: Components, tags: int):
        super().__init__()
        self.audio_tower, self.components = audio_tower, components
        width = audio_tower.config.hidden_size * audio_tower.config.grid[1]
        self.imitate = nn.Linear(width, components.project.shape[1])
        self.tags = nn.Linear(width, tags)
        for head, start in ((self.imitate, 0.0), (self.tags, SELDOM)):
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, start)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Encode windows (windows, frames, mel bins), (windows, rows, columns * dim)."""
        tokens = self.audio_tower(windows).last_hidden_state[:, 1:]
        return tokens.unflatten(1, self.audio_tower.config.grid).flatten(2)

    def errors(self, rows: torch.Tensor, aims: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        """
        Mean squared error of each component.

        Args:
            rows: What `forward` gives, (windows, rows, columns * dim).
            aims: Components to tell, (windows, rows, components).
            heard: Which rows are no padding, (windows, rows).

        Returns:
            (components,)
        """
        return mean_heard((self.imitate(rows).float() - aims).square(), heard)

    def missed(
        self, rows: torch.Tensor, spans: torch.Tensor, labels: torch.Tensor, known: torch.Tensor
    ) -> torch.Tensor:
        """
        Summed cross entropy of the tags of the spans and of a part of each, on average over those that are known.

        Args:
            rows: What `forward` gives, (windows, rows, columns * dim).
            spans: Window, first row and end row of each span, (spans, 3).
            labels: 1 where a tag is heard and 0 elsewhere, (spans, tags).
            known: 1 where the labels are all that is heard, else 0, (spans,).
        """
        scores = self.tags(mean_rows(rows, torch.cat([spans, draw_parts(spans)]))).float()
        missed = nn.functional.binary_cross_entropy_with_logits(scores, labels.repeat(2, 1), reduction="none").sum(1)
        known = known.repeat(2)
        return (missed * known).sum() / known.sum().clamp(min=1)


@torch.no_grad()
def start_small(tower: EatModel) -> None:
    """Make the branches of a new encoder small at first, which keeps a deep stack of post-norm blocks stable."""
    for layer in tower.layers:
        for last in (layer.attention.proj, layer.mlp.fc2):
            last.weight.mul_((2 * len(tower.layers)) ** -0.5)


def at_rows(embeddings: torch.Tensor, rows: int) -> torch.Tensor:
    """Interpolate embeddings (windows, embeddings, width) at rows of patches, (windows, rows, width)."""
    last = embeddings.shape[1] - 1
    middles = (torch.arange(rows, device=embeddings.device) + 0.5) * ROW_SECONDS
    places = ((middles - FIRST) / STEP).clamp(0, last)
    low = places.long()
    part = (places - low).unsqueeze(1)
    return embeddings[:, low] * (1 - part) + embeddings[:, (low + 1).clamp(max=last)] * part


def mean_heard(values: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
    """Mean (n,) of values (windows, rows, n) over the rows that are heard, (windows, rows)."""
    return (values * heard.unsqueeze(2)).sum((0, 1)) / heard.sum()


def mean_rows(rows: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """Mean (spans, n) of the rows (windows, rows, n) of each span: window, first row and end row, (spans, 3)."""
    window, first, end = spans.unbind(1)
    total = nn.functional.pad(rows.float().cumsum(1), (0, 0, 1, 0))
    return (total[window, end] - total[window, first]) / (end - first).unsqueeze(1)

"""
Encodings of recordings as if the encoder had never heard them: moved to where their scores are what others tell.

A stage of tags or embeddings leaves the scores of the tags in the connector (`SpanTagger.hand_over`), so what a frozen
encoder says can be moved, by as little as it takes, until it has any scores that one likes: here those of `cross_fit`.
What varies within the 0.96 s of an embedding stays.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from modeling_mac import MacModel
from modeling_mac.connector_mac import MeanPoolConnector
from training_mac.data.data_error import DataError
from training_mac.objectives.cross_fitting import cross_fit
from training_mac.objectives.embeddings import FRAMES_PER_SECOND, EmbeddingPupil
from training_mac.objectives.tags import check_connector, frames_per_row
from training_mac.objectives.teacher_targets import TEACHER_STEP, TeacherTargets, read_targets
from training_mac.recipe.file import Stage


# An encoder is surer than a regression, and nobody knows by how much before it hears something new: so each scene has
# another scale, and another offset for all its tags.
SCALES, OFFSETS = (1.0, 1.8), (-0.5, 2.5)


class EvidenceOfOthers:
    """
    Moves the encodings of recordings.

    Args:
        model: Model whose connector's first units are the scores of the tags, as a stage of embeddings leaves them.
        targets: Targets of the recordings.
        told: Scores of the tags at the teacher's embeddings of each recording, (frames, tags).
        certain: Tags that the teacher does not hear, with those that they are part of, along with which they move; so
            what the encoder hears of them, beside what it hears of these, stays.

    Raises:
        ValueError: A certain tag is unknown, or the connector does not hold the scores.
    """

    def __init__(
        self, model: MacModel, targets: TeacherTargets, told: Sequence[torch.Tensor], certain: Mapping[str, str]
    ):
        if unknown := {*certain, *certain.values()} - set(targets.tags):
            raise DataError(
                f"`certain_tags`: no tag is named {min(unknown)}; expected some of {', '.join(targets.tags)}."
            )
        connector, tags = model.connector, len(targets.tags)
        check_connector(type(connector))
        if isinstance(connector, MeanPoolConnector) or tags > len(connector.linear_1.weight):
            raise DataError(f"`cross_fitted_tags`: the connector does not hold the scores of {tags} tags.")
        self.columns = model.config.audio_config.grid[1]
        self.rows_per_frame = TEACHER_STEP * FRAMES_PER_SECOND / frames_per_row(model.config.audio_config)
        self.told = dict(zip(targets.files, told, strict=True))
        self.along = torch.tensor([targets.ids[certain.get(tag, tag)] for tag in targets.tags])
        width, layer = model.config.audio_config.hidden_size, connector.linear_1
        weight = layer.weight[:tags].detach().float().cpu().unflatten(1, (-1, width))  # (tags, side by side, width)
        if weight.shape[1] != self.columns:
            # The mean of tokens has the mean of their scores, wherever these stand side by side in what is read.
            weight = weight.sum(1, keepdim=True).expand(-1, self.columns, -1) / self.columns
        self.weight = weight.flatten(1)  # (tags, columns * width)
        self.bias = layer.bias[:tags].detach().float().cpu() - EmbeddingPupil.doubt
        self.back = torch.linalg.pinv(self.weight)  # (columns * width, tags)

    def __call__(self, states: torch.Tensor, audio: str, rng: np.random.Generator) -> torch.Tensor:
        """
        Move an example's encoding.

        Args:
            states: Hidden states of the encoder, (windows, 1 + patches, dim).
            audio: Path of the recording.
            rng: Source of the scale and the offset.

        Returns:
            The moved hidden states, of the same shape.
        """
        told = self.told[Path(audio).name]
        scale, offset = rng.uniform(*SCALES), rng.uniform(*OFFSETS)
        grid = states[:, 1:].reshape(-1, self.columns * states.shape[2])  # (all rows, columns * dim)
        heard = min(len(grid), round(len(told) * self.rows_per_frame))
        if heard < (len(told) - 1) * self.rows_per_frame:
            raise DataError(
                f"{audio} is longer than `max_windows`: `cross_fitted_tags` needs the whole of what the teacher heard."
            )
        now = torch.stack([part.mean(0) for part in grid[:heard].tensor_split(len(told))])  # (frames, columns * dim)
        missing = scale * told + offset - (now @ self.weight.mT + self.bias)
        moves = missing[:, self.along] @ self.back.mT  # (frames, columns * dim)
        # Between the middles of two embeddings the move goes over from one to the other: a step would give away
        # where a sound begins.
        moves = nn.functional.interpolate(moves.mT[None], size=heard, mode="linear")[0].mT  # (heard rows, ...)
        grid = torch.cat([grid[:heard] + moves, grid[heard:]])
        return torch.cat([states[:, :1], grid.view(len(states), -1, states.shape[2])], dim=1)


def evidence_of_others(stage: Stage, model: MacModel, examples: Any) -> EvidenceOfOthers | None:
    """Prepare what `cross_fitted_tags` of a stage of captions asks for; None if it asks for nothing."""
    recipe = stage.recipe
    if not recipe.cross_fitted_tags:
        return None
    targets = read_targets(recipe.teacher_targets, examples.clips)
    try:
        told = cross_fit(targets, recipe.cross_fitted_tags)
    except DataError as error:
        raise DataError(f"`cross_fitted_tags`: {error}") from error
    return EvidenceOfOthers(model, targets, told, recipe.certain_tags)

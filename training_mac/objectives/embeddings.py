"""
An encoder that imitates a teacher from elsewhere: its embedding of each stretch of a recording, and its tags.

A tagger that has heard millions of recordings tells more by the numbers of its last layer than any label does: which
sounds are alike, and what goes on behind what. Its embeddings are computed beforehand and read from a file
(`teacher_targets.py`). Tags stand beside them, many at once where several sources sound together.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modeling_mac import EatModel
from modeling_mac.connector_mac import Connector, MeanPoolConnector
from training_mac.data.data_error import DataError
from training_mac.examples.training_set import make_training_set
from training_mac.loop.trainer import MacTrainer
from training_mac.objectives.materials import Materials
from training_mac.objectives.tags import SpanTagger, check_connector, draw_parts, mean_tokens, whiten_encoder
from training_mac.objectives.teacher_targets import TEACHER_STEP, TeacherTargets, read_targets
from training_mac.recipe.file import Stage


# The feature extractor makes a frame every 10 ms.
FRAMES_PER_SECOND = 100
IMITATION = 10.0  # weight of the embeddings' mean squared error beside the tags' summed cross entropy
SELDOM = -4.0  # scores of the tags at first, for each is heard in some 2 % of the stretches
# Recordings that tell the heads of a stage that goes on what an encoder's tokens are like, the share of their tokens
# that do, and the weight that keeps their least squares from following chance.
TAKEN_UP, TOKEN_SHARE, RIDGE = 1200, 0.1, 1e-3


class EmbeddingPupil(SpanTagger):
    """
    An encoder with two linear heads, for the teacher's embedding at each patch and for the tags of each stretch.

    Args:
        audio_tower: Encoder, an `EatModel`, which is trained in place.
        num_tags: Number of tags.
        kept_patches: Number of patches of a window that enter the encoder in training; in evaluation all do.
        width: Size of the teacher's embedding.
    """

    doubt, usual = -SELDOM, SELDOM  # with these a tag that is not heard adds nothing to the connector

    def __init__(self, audio_tower: EatModel, num_tags: int, kept_patches: int, width: int):
        super().__init__(audio_tower, num_tags, kept_patches)
        nn.init.constant_(self.head.bias, SELDOM)
        self.imitate = nn.Linear(audio_tower.config.hidden_size, width)
        self.teacher_norm = nn.BatchNorm1d(width, affine=False)

    @torch.no_grad()
    def take_up(self, connector: Connector, batches: Iterable[dict[str, torch.Tensor]]) -> None:
        """
        Start with the scores that `hand_over` has left in a connector, and with the best imitation of these tokens.

        Args:
            connector: Connector whose first units are the scores of the tags.
            batches: Batches of a `TeacherCollator`.

        Raises:
            ValueError: The connector has no such units, or they weigh the tokens side by side each in its own way.
        """
        tags, width = self.head.weight.shape
        check_connector(type(connector))
        if isinstance(connector, MeanPoolConnector) or len(connector.linear_1.weight) < tags:
            raise DataError(f"`continue_tags`: the connector does not hold the scores of {tags} tags.")
        side_by_side = connector.linear_1.weight[:tags].unflatten(1, (-1, width))  # (tags, tokens, width)
        shared = side_by_side.mean(1, keepdim=True).expand_as(side_by_side)
        if (side_by_side - shared).norm() > shared.norm():
            raise DataError(
                "`continue_tags`: the connector weighs the tokens of a row each in its own way, and this stage would "
                "tell the tags from their mean. Go on by recipes/hear_everyday.py, or without `continue_tags`."
            )
        means, tokens, aims = (torch.cat(parts) for parts in zip(*map(self.observe, batches), strict=True))
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        self.norm.running_mean.copy_(means.mean(0))
        self.norm.running_var.copy_(means.var(0))
        weight = side_by_side.sum(1)  # (tags, width), of a mean token
        self.head.weight.copy_(weight * (self.norm.running_var + self.norm.eps).sqrt())
        self.head.bias.copy_(connector.linear_1.bias[:tags] - self.doubt + weight @ self.norm.running_mean)
        centred, aims = tokens - tokens.mean(0), (aims - aims.mean(0)) / (aims.var(0) + self.teacher_norm.eps).sqrt()
        moments = centred.mT @ centred
        moments.diagonal().add_(RIDGE * moments.trace() / width)
        self.imitate.weight.copy_(torch.linalg.solve(moments, centred.mT @ aims).mT)
        self.imitate.bias.copy_(-self.imitate.weight @ tokens.mean(0))

    def observe(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The mean token of each span, and some tokens (tokens, dim) with the embeddings to tell from them."""
        tokens = self.audio_tower(batch["input_features"]).last_hidden_state[:, 1:]
        row = torch.arange(tokens.shape[1], device=tokens.device) // self.audio_tower.config.grid[1]
        row = row.expand(len(tokens), -1)  # (windows, patches)
        known = (row < batch["heard_rows"].unsqueeze(1)) & (torch.rand(row.shape, device=row.device) < TOKEN_SHARE)
        aims = batch["heard"].gather(1, row.unsqueeze(-1).expand(-1, -1, self.imitate.out_features))
        return mean_tokens(tokens, row, batch["spans"])[0], tokens[known], aims[known]

    def forward(  # type: ignore[override]
        self,
        input_features: torch.Tensor,
        heard: torch.Tensor,
        heard_rows: torch.Tensor,
        spans: torch.Tensor,
        labels: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """
        Compare the encoder with the teacher's embeddings and the tags.

        Args:
            input_features: Normalised log-mels, (windows, frames, mel bins).
            heard: The teacher's embedding at each row of patches, (windows, rows, width).
            heard_rows: Number of rows that are no padding, (windows,).
            spans: Window, first patch row and end patch row of each span, (spans, 3).
            labels: 1 where a tag is heard and 0 elsewhere, (spans, tags).

        Returns:
            `loss`; `logits` (spans, tags), in training (2 * spans, tags): first of the spans, then of a part of each.
        """
        patches = self.draw_patches(heard_rows)
        if self.training:
            spans, labels = torch.cat([spans, draw_parts(spans)]), labels.repeat(2, 1)
        tokens = self.audio_tower(input_features, kept_patches=patches).last_hidden_state[:, 1:]
        row = patches // self.audio_tower.config.grid[1]  # (windows, kept)
        means, count = mean_tokens(tokens, row, spans)
        logits = self.head(self.norm(means))
        missed = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)
        loss = missed[count > 0].mean()  # a short span may have none of the patches that were kept
        return {"loss": loss + IMITATION * self.distance(tokens, row, heard, heard_rows), "logits": logits}

    def draw_patches(self, heard_rows: torch.Tensor) -> torch.Tensor:
        """Draw the patches that enter the encoder, (windows, kept): some in training, padding only for want."""
        rows, columns = self.audio_tower.config.grid
        patches = torch.arange(rows * columns, device=heard_rows.device).expand(len(heard_rows), -1)
        if not self.training:
            return patches
        padding = patches // columns >= heard_rows.unsqueeze(1)
        order = (torch.rand(patches.shape, device=patches.device) + padding).argsort(dim=1)
        return order[:, : self.kept_patches]

    def distance(
        self, tokens: torch.Tensor, row: torch.Tensor, heard: torch.Tensor, heard_rows: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error of the embeddings told from tokens (windows, kept, dim) to the normalised ones."""
        aim = heard.gather(1, row.unsqueeze(-1).expand(-1, -1, heard.shape[2]))  # (windows, kept, width)
        known = row < heard_rows.unsqueeze(1)  # (windows, kept)
        return nn.functional.mse_loss(self.imitate(tokens[known]), self.teacher_norm(aim[known]))


class TeacherCollator:
    """
    Makes a batch for `EmbeddingPupil` of examples of one window each.

    Args:
        targets: Targets of all recordings.
        grid: Numbers of rows and columns of patches in a window.
        patch_size: Number of frames in a row of patches.
    """

    def __init__(self, targets: TeacherTargets, grid: tuple[int, int], patch_size: int):
        self.targets, self.rows, self.patch_size = targets, grid[0], patch_size
        self.places = {file: place for place, file in enumerate(targets.files)}
        centres = (torch.arange(self.rows) + 0.5) * patch_size / FRAMES_PER_SECOND
        self.nearest = (centres / TEACHER_STEP).long()  # index of the embedding that each row lies in

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        heard, heard_rows, spans, labels = [], [], [], []
        for window, example in enumerate(examples):
            place = self.places[Path(example["audio"]).name]
            embeddings = self.targets.embeddings[place]
            heard.append(embeddings[self.nearest.clamp(max=len(embeddings) - 1)].float())
            length = max(end for _, end, _ in example["spans"])  # frames
            heard_rows.append(min(max(1, -(-length // self.patch_size)), self.rows))
            for first, end, ids in self.targets.stretches[place]:
                begin, stop = (round(second * FRAMES_PER_SECOND) // self.patch_size for second in (first, end))
                begin = min(begin, self.rows - 1)
                spans.append((window, begin, min(max(stop, begin + 1), self.rows)))
                labels.append(torch.zeros(len(self.targets.tags)).index_fill_(0, torch.tensor(ids), 1.0))
        return {
            "input_features": torch.cat([example["input_features"] for example in examples]),
            "heard": torch.stack(heard),
            "heard_rows": torch.tensor(heard_rows),
            "spans": torch.tensor(spans),
            "labels": torch.stack(labels),
        }


def make_embedding_trainer(stage: Stage, materials: Materials) -> MacTrainer:
    """Make a trainer of the encoder alone, which learns to imitate a teacher from elsewhere."""
    scenes: Any = make_training_set(stage.data, materials.processor, stage.training.seed, materials.tables)
    targets = read_targets(stage.recipe.teacher_targets, scenes.clips)
    tower = materials.model.model.audio_tower
    if stage.recipe.whiten:
        whiten_encoder(tower, scenes)
    pupil = EmbeddingPupil(tower, len(targets.tags), stage.recipe.kept_patches, targets.width)
    collate = TeacherCollator(targets, tower.config.grid, tower.config.patch_size)
    if stage.recipe.continue_tags:
        chosen = torch.randperm(len(scenes))[:TAKEN_UP].split(stage.training.per_device_train_batch_size)
        pupil.take_up(materials.model.model.connector, (collate([scenes[int(k)] for k in some]) for some in chosen))
    return MacTrainer(pupil, stage.training, recipe=stage.recipe, train_dataset=scenes, data_collator=collate)

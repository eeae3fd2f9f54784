"""
Teaching a new encoder to hear before it learns to speak: every span of a scene is named from its tokens.

Captions alone teach a randomly initialised encoder slowly, since most of their words do not depend on the sound. Here
each recording in a scene must be told from the mean of the tokens under it, and from a short part of them, so that the
tokens that the connector reads carry it. As in EAT's own training only a random part of the patches enters the encoder
(arXiv 2401.03497, section 3), which makes a step several times cheaper. The head then becomes a part of the connector,
so that the language model starts from evidence for each source.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from modeling_mac import EatModel
from modeling_mac.connector_mac import (
    ConcatConnector,
    Connector,
    FrequencyMajorConnector,
    MeanPoolConnector,
    StackConnector,
    TimeMajorConnector,
)
from training_mac.data.data_error import DataError
from training_mac.examples.training_set import make_training_set
from training_mac.loop.trainer import MacTrainer
from training_mac.objectives.materials import Materials
from training_mac.objectives.teacher import ConvTagger, list_sources
from training_mac.objectives.whitening import whiten_patches
from training_mac.recipe.file import Stage


# Added to the scores that the connector's GELU lets through, so that weak evidence against a source counts, too, when
# the language model weighs the tokens of a sound.
DOUBT = 2.0

PART = 4  # patch rows (0.64 s) of a span that must name its source, as the whole span does


class SpanTagger(nn.Module):
    """
    An encoder with a linear head on the means of spans.

    `hand_over` uses `doubt`, which is added to the scores, and `usual`, the scores where nothing is heard.

    Args:
        audio_tower: Encoder of any kind, which is trained in place.
        num_sources: Number of sources to tell apart.
        kept_patches: Number of patches of a window that enter an `EatModel` in training; in evaluation, and in towers
            of other kinds, which scan or convolve what is side by side, all do.
        teachers: Trained taggers to imitate, if any, in their scores of each span and their features at each row.
    """

    doubt, usual = DOUBT, 0.0

    def __init__(
        self, audio_tower: PreTrainedModel, num_sources: int, kept_patches: int, teachers: Sequence[ConvTagger] = ()
    ):
        super().__init__()
        self.audio_tower = audio_tower
        self.kept_patches = kept_patches
        self.teachers: Any = nn.ModuleList(teachers).requires_grad_(False)
        if teachers:
            width = sum(teacher.head.in_features for teacher in teachers)
            self.imitate = nn.Linear(audio_tower.config.hidden_size, width)
            self.teacher_norm = nn.BatchNorm1d(width, affine=False)
        hidden_size = audio_tower.config.hidden_size
        # Means over tokens differ little between sounds: without this a linear head learns very slowly.
        self.norm = nn.BatchNorm1d(hidden_size, affine=False)
        self.head = nn.Linear(hidden_size, num_sources)
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)

    def forward(
        self, input_features: torch.Tensor, spans: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """
        Name the source of each span, and compare with the labels and the teachers.

        Args:
            input_features: Normalised log-mels, (windows, frames, mel bins).
            spans: Window, first patch row and end patch row of each span, (spans, 3).
            labels: Ids of the sources, (spans,).

        Returns:
            `loss`; `logits` (spans, sources), in training (2 * spans, sources): of spans, then of their parts.
        """
        rows, columns = self.audio_tower.config.grid
        patches = torch.arange(rows * columns, device=input_features.device).expand(len(input_features), -1)
        if self.training and isinstance(self.audio_tower, EatModel):
            patches = torch.rand(patches.shape, device=patches.device).argsort(dim=1)[:, : self.kept_patches]
        kept = {"kept_patches": patches} if isinstance(self.audio_tower, EatModel) else {}
        tokens = self.audio_tower(input_features, **kept).last_hidden_state[:, 1:]
        row = patches // columns  # (windows, kept)
        whole = spans
        if self.training:
            spans, labels = torch.cat([whole, draw_parts(whole)]), labels.repeat(2)
        logits = self.head(self.norm(mean_tokens(tokens, row, spans)[0]))
        loss = self.loss(logits, labels)
        if self.teachers and self.training:
            loss = loss + self.imitation_loss(input_features, whole, logits, tokens, row)
        return {"loss": loss, "logits": logits}

    def imitation_loss(
        self,
        input_features: torch.Tensor,
        spans: torch.Tensor,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        row: torch.Tensor,
    ) -> torch.Tensor:
        """
        Compute how far the student is from the teachers.

        Args:
            logits: Scores of the student, (2 * spans, sources).
            tokens: Tokens of the student, (windows, kept, dim).
            row: Row of patches of each token, (windows, kept).
        """
        with torch.no_grad():
            taught = [(teacher, teacher.eval().features(input_features)) for teacher in self.teachers]
            said = torch.stack([teacher.classify(features, spans).log_softmax(dim=1) for teacher, features in taught])
            beliefs = said.logsumexp(dim=0) - math.log(len(said))  # logarithm of the teachers' mean probability
            features = torch.cat([features for _, features in taught], dim=2)  # (windows, rows, width)
            heard = self.teacher_norm(features.flatten(0, 1)).view_as(features)
        heard = heard.gather(1, row.unsqueeze(-1).expand(-1, -1, heard.shape[2]))  # (windows, kept, width)
        return nn.functional.kl_div(
            logits.log_softmax(dim=1), beliefs.repeat(2, 1), reduction="batchmean", log_target=True
        ) + nn.functional.mse_loss(self.imitate(tokens), heard)

    @torch.no_grad()
    def hand_over(self, connector: Connector | MeanPoolConnector) -> None:
        """
        Make the first units of the connector's MLP the scores of the sources plus `doubt`, for the tokens that it
        reads at a time, and let only these units through at first.

        A language model that starts from nothing otherwise learns to ignore the audio before it learns to use it:
        what little differs between sounds in the encoder's tokens is drowned by all that does not help.

        Raises:
            ValueError: The MLP has fewer units than there are sources, or other tokens than the encoder's reach it.
        """
        check_connector(type(connector))
        if isinstance(connector, MeanPoolConnector):  # this connector has no MLP
            return
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        deviation = (self.norm.running_var + self.norm.eps).sqrt()
        weight = self.head.weight / deviation
        layer, sources = connector.linear_1, len(weight)
        if sources > len(layer.weight):
            raise DataError(f"`connector_hidden_size` is {len(layer.weight)}; {sources} sources need as many units.")
        tokens = layer.in_features // weight.shape[1]  # number of tokens side by side in one input of the connector
        layer.weight[:sources] = weight.repeat(1, tokens) / tokens
        layer.bias[:sources] = self.head.bias - weight @ self.norm.running_mean + self.doubt
        connector.linear_2.weight[:, sources:] = 0
        usual = nn.functional.gelu(layer.bias.new_full((sources,), self.usual + self.doubt))
        # The bias is set, not lowered, since an earlier stage may have lowered it.
        connector.linear_2.bias.copy_(-connector.linear_2.weight[:, :sources] @ usual)


def check_connector(kind: type[nn.Module]) -> None:
    """
    Refuse a class of connectors that would not hand the scores of sources on: it mixes the tokens before its MLP.

    Raises:
        ValueError: It is none of those that a stage of tags can start.
    """
    if not issubclass(
        kind, (ConcatConnector, StackConnector, TimeMajorConnector, FrequencyMajorConnector, MeanPoolConnector)
    ):
        raise DataError(
            f"A stage of tags or embeddings cannot hand its scores to a {kind.__name__}: it mixes the tokens before "
            "its MLP. Choose the `connector_type` concat, stack, time_major, frequency_major or mean_pool, or train "
            "the encoder in a run of its own and name that in `encoder_of`."
        )


def mean_tokens(tokens: torch.Tensor, row: torch.Tensor, spans: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute the mean of the tokens under each span.

    Args:
        tokens: Tokens of the encoder, (windows, kept, dim).
        row: Row of patches of each token, (windows, kept).
        spans: Window, first patch row and end patch row of each span, (spans, 3).

    Returns:
        The mean of each span (spans, dim), 0 where a span has no token; and the number of its tokens (spans,).
    """
    window, first, end = spans.unbind(1)
    inside = (row[window] >= first.unsqueeze(1)) & (row[window] < end.unsqueeze(1))  # (spans, kept)
    sums = torch.einsum("sk,skd->sd", inside.to(tokens.dtype), tokens[window])
    count = inside.sum(1)
    return sums / count.unsqueeze(1).clamp(min=1), count


def draw_parts(spans: torch.Tensor) -> torch.Tensor:
    """
    Draw `PART` rows somewhere in each span (spans, 3), or all rows of a shorter span.

    A language model reads tokens one by one and forgets, so what tells a sound apart must not lie in their mean alone.
    With such parts, attention learns to bring it to each of them.
    """
    window, first, end = spans.unbind(1)
    length = (end - first).clamp(max=PART)
    start = first + (torch.rand(len(spans), device=spans.device) * (end - first - length + 1)).long()
    return torch.stack([window, start, start + length], dim=1)


class SpanCollator:
    """Makes batches of scenes: windows, their spans in patch rows, and the ids of the spans' sources."""

    def __init__(self, sources: list[str], patch_size: int):
        self.source_ids = {source: index for index, source in enumerate(sources)}
        self.patch_size = patch_size

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        spans, labels, windows = [], [], 0
        for example in examples:
            count, frames = example["input_features"].shape[:2]
            for first, end, source in example["spans"]:
                parts = list(self.split(first, end, frames))
                spans += [(windows + window, *rows) for window, *rows in parts]
                labels += [self.source_ids[source]] * len(parts)
            windows += count
        return {
            "input_features": torch.cat([example["input_features"] for example in examples]),
            "spans": torch.tensor(spans),
            "labels": torch.tensor(labels),
        }

    def split(self, first: int, end: int, frames: int) -> Iterator[tuple[int, int, int]]:
        """
        Split a span of frames into (window, first patch row, end patch row) for each window of `frames` that it is in.

        Where the span reaches less than a patch into a window, it is left out, unless there is nothing else of it.
        """
        for window in range(first // frames, -(-end // frames)):
            begin, stop = max(first - window * frames, 0), min(end - window * frames, frames)
            if stop - begin >= self.patch_size or 0 < stop - begin == end - first:
                row = begin // self.patch_size
                yield window, row, max(stop // self.patch_size, row + 1)


def frames_per_row(config: PreTrainedConfig) -> int:
    """Give the frames of log-mel from one row of a tower's grid to the next."""
    return getattr(config, "stride", None) or config.window_frames // config.grid[0]


def whiten_encoder(tower: EatModel, scenes: Any) -> None:
    """Start the patch embedding from the first 4.8 s of some 500 recordings, which are enough for its statistics."""
    extractor = scenes.extractor
    log_mels = (scenes.log_mels[row][:480].float() for row in islice(scenes.readable_rows(), 500))
    whiten_patches(tower.embeddings, [(log_mel - extractor.mean) / extractor.scale for log_mel in log_mels])


def make_tag_trainer(stage: Stage, materials: Materials) -> MacTrainer:
    """Make a trainer of the encoder alone, which learns to name the sources of spans."""
    scenes: Any = make_training_set(stage.data, materials.processor, stage.training.seed, materials.tables)
    sources = list_sources(scenes.clips)
    tower = materials.model.model.audio_tower
    if stage.recipe.whiten:
        whiten_encoder(tower, scenes)
    teachers = [ConvTagger.from_weights(weights) for weights in materials.teachers]
    return MacTrainer(
        SpanTagger(tower, len(sources), stage.recipe.kept_patches, teachers),
        stage.training,
        recipe=stage.recipe,
        train_dataset=scenes,
        data_collator=SpanCollator(sources, frames_per_row(tower.config)),
    )

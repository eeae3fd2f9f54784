"""
Convolutional taggers that teach the encoder.

With a thousand recordings a convolutional network learns to tell sounds apart better than a transformer, which must
first find out that neighbouring patches belong together. The encoder then imitates it (`SpanTagger`): what the teacher
says of a scene, made anew each time, tells more than the labels do; two teachers together tell more than each, since
they err on different recordings. The teachers themselves are not shipped.

A teacher learns from mixtures of two recordings with their shares as targets (between-class learning, arXiv
1711.10282).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, default_collate

from processing_mac.dataset_mac import Clip
from training_mac.data.data_error import DataError
from training_mac.examples.augmentation import mask_stripes
from training_mac.examples.scenes import SceneMaker
from training_mac.examples.training_set import make_training_set
from training_mac.loop.trainer import MacTrainer
from training_mac.objectives.materials import Materials
from training_mac.recipe.file import Stage


ROW_FRAMES = 16  # frames from one of its rows of features to the next
EXCERPT = 512  # frames of a mixture, which are 5.12 s


def conv_block(channels: int, width: int) -> nn.Sequential:
    """Make a block that halves time and frequency, then applies two 3x3 convolutions."""
    layers: list[nn.Module] = [nn.MaxPool2d(2)]
    for inputs in (channels, width):
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


class ConvTagger(nn.Module):
    """
    A convolutional network that tells the sources of a recording.

    Args:
        num_sources: Number of sources to tell apart.
        width: Number of channels of the first block; each of the two that follow has twice as many as the one before.
    """

    def __init__(self, num_sources: int, width: int):
        super().__init__()
        # Half the mel bins are enough for the teacher, and halve its cost.
        first = nn.Conv2d(1, width // 2, (5, 7), stride=(2, 4), padding=(2, 3), bias=False)
        stem: list[nn.Module] = [first, nn.BatchNorm2d(width // 2), nn.ReLU()]
        blocks = [conv_block(width // 2, width), conv_block(width, 2 * width), conv_block(2 * width, 4 * width)]
        self.blocks = nn.Sequential(*stem, *blocks)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(4 * width, num_sources)
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)

    @classmethod
    def from_weights(cls, weights: dict[str, torch.Tensor]) -> "ConvTagger":
        """Load a trained tagger, whose width its weights tell."""
        num_sources, features = weights["head.weight"].shape
        tagger = cls(num_sources, features // 4)
        tagger.load_state_dict(weights)
        return tagger

    def forward(self, input_features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Tell the shares of the sources in each window, and compare with the labels.

        Args:
            input_features: Normalised log-mels, (windows, frames, mel bins).
            labels: Share of each source, from 0 to 1, (windows, sources).

        Returns:
            `loss`; `logits` (windows, sources).
        """
        features = self.features(input_features)
        rows = torch.tensor([[window, 0, features.shape[1]] for window in range(len(features))])
        logits = self.classify(features, rows.to(features.device))
        return {"loss": self.loss(logits, labels), "logits": logits}

    def features(self, input_features: torch.Tensor) -> torch.Tensor:
        """Compute (windows, frames / `ROW_FRAMES`, 4 * width) from (windows, frames, mel bins): the encoder's rows."""
        images = input_features.unsqueeze(1).to(memory_format=torch.channels_last)  # this layout is quicker on CPUs
        return self.blocks(images).mean(dim=3).transpose(1, 2)

    def classify(self, features: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
        """Compute logits (spans, sources) from maximum and mean over each span's rows; spans as in `SpanTagger`."""
        window, first, end = spans.unbind(1)
        row = torch.arange(features.shape[1], device=features.device)
        inside = ((row >= first.unsqueeze(1)) & (row < end.unsqueeze(1))).unsqueeze(-1)  # (spans, rows, 1)
        features = features[window] * inside  # none is negative after ReLU, so zeros leave the maximum alone
        return self.head(self.dropout(features.amax(dim=1) + features.sum(dim=1) / inside.sum(dim=1)))


class MixtureDataset(Dataset):
    """
    Excerpts of mixtures of two recordings; item i is built around clip i.

    Args:
        clips: Clips of the manifest.
        log_mels: Raw log-mels of the clips, (frames, mel bins) each.
        sources: Names of the sources, in the order of the targets.
        scenes: Scene maker that varies a recording as the recipe says.
        seed: Seed of every random choice, used together with the epoch and the row.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        log_mels: Sequence[torch.Tensor],
        sources: list[str],
        scenes: SceneMaker,
        seed: int = 0,
    ):
        self.clips = clips
        self.targets = torch.eye(len(sources))[[sources.index(str(clip.source)) for clip in clips]]
        self.log_mels = log_mels
        self.scenes = scenes
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer's data loader calls this at the start of each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.log_mels)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, self.epoch, row])
        log_mel, target = self.excerpt(row, rng), self.targets[row]
        share = rng.uniform(0.5, 1.0)  # share of the first recording in the amplitude
        other = int(rng.integers(len(self)))
        alone = self.clips[row].scene or self.clips[other].scene
        if rng.random() > 0.3 and not alone:
            quieter = self.excerpt(other, rng) + 2 * float(np.log(1 - share))
            log_mel = torch.logaddexp(log_mel + 2 * float(np.log(share)), quieter)
            target = share * target + (1 - share) * self.targets[other]
        extractor = self.scenes.extractor
        if self.scenes.data.spec_augment:
            log_mel = mask_stripes(log_mel, rng, extractor.mean)
        features = (log_mel - extractor.mean) / extractor.scale
        return {"input_features": features, "labels": target}

    def excerpt(self, row: int, rng: np.random.Generator) -> torch.Tensor:
        """Cut (EXCERPT, mel bins) of a varied clip; a clip that is too short repeats."""
        log_mel = self.scenes.vary((self.clips[row], self.log_mels[row]), rng)
        return log_mel.repeat(-(-EXCERPT // len(log_mel)), 1)[:EXCERPT]


def list_sources(clips: Sequence[Clip]) -> list[str]:
    """
    List the sources of a manifest in sorted order.

    Raises:
        ValueError: A clip has no source.
    """
    sources: set[str] = set()
    for clip in clips:
        if clip.source is None:
            raise DataError(f"Training on tags needs a `source` for every clip; {clip.audio} has none.")
        sources.add(clip.source)
    return sorted(sources)


def make_teacher_trainer(stage: Stage, materials: Materials) -> MacTrainer:
    """Make a trainer of the network that the encoder will imitate."""
    scenes: Any = make_training_set(stage.data, materials.processor, stage.training.seed, materials.tables)
    sources = list_sources(scenes.clips)
    rows = list(scenes.readable_rows())
    log_mels: Any = Subset(scenes.log_mels, rows)
    clips = [scenes.clips[row] for row in rows]
    return MacTrainer(
        ConvTagger(len(sources), stage.recipe.teacher_width),
        stage.training,
        recipe=stage.recipe,
        train_dataset=MixtureDataset(clips, log_mels, sources, scenes.scenes, stage.training.seed),
        data_collator=default_collate,
    )

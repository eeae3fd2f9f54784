"""
SSAMBA's own pretraining (arXiv 2405.11831): a tower learns from recordings alone, by patches that it cannot see.

In each window most patches are masked. The tower must tell every masked patch from the others of its window, and give
its log-mel cells; each of the two has a mask and a pass of its own. No caption and no tag is read. The two prediction
heads stay behind in the stage's checkpoints, since a captioner has no use for them.
"""

import random
from typing import Any

import torch
from torch import nn

from modeling_mac import SsambaModel
from modeling_mac.ssamba_pretraining_mac import SsambaForPreTraining, draw_mask
from training_mac.examples.training_set import make_training_set
from training_mac.loop.trainer import MacTrainer
from training_mac.objectives.materials import Materials
from training_mac.recipe.file import Stage


MEASURES = ("contrastive", "reconstruction", "accuracy")  # what the log tells beside the loss


class MaskedPatchPupil(nn.Module):
    """
    A SSAMBA with its two prediction heads, which masks its windows by itself.

    Args:
        audio_tower: Encoder, a `SsambaModel`, which is trained in place.
        masked_patches: Number of patches that are masked in a window without padding; of a shorter recording the same
            share, and no padding, which has nothing to tell. A window with less than half the sound of the batch's
            longest is left out.

    Raises:
        ValueError: The patches overlap.
    """

    def __init__(self, audio_tower: SsambaModel, masked_patches: int):
        super().__init__()
        self.network = SsambaForPreTraining(audio_tower.config)
        self.network.ssamba = audio_tower  # in place of the new one that came with the heads
        self.masked_patches = masked_patches
        self.sums = dict.fromkeys(MEASURES, 0.0)
        self.counted = 0

    def forward(self, input_features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute `loss`, and the values of `MEASURES`, of windows (windows, frames, mel bins)."""
        heard = heard_rows(input_features, self.network.config.patch_size)
        # All windows of a batch mask equally many patches. A recording's short end must not decide how many.
        full = 2 * heard >= heard.max()
        input_features, heard = input_features[full], heard[full]
        outputs = self.network(input_features, *self.draw_masks(heard).to(input_features.device))
        if self.training:
            self.counted += 1
            for name in MEASURES:
                self.sums[name] += float(outputs[name].detach())
        return dict(outputs)

    def draw_masks(self, heard: torch.Tensor) -> torch.Tensor:
        """
        Draw two masks, (2, windows, masked), from torch's generator, so that a run goes on with the same ones.

        Args:
            heard: Number of rows of patches that are no padding, (windows,).
        """
        rows, columns = self.network.config.grid
        shortest = int(heard.min()) * columns
        count = min(max(1, self.masked_patches * shortest // (rows * columns)), shortest - 2)
        generator = random.Random(int(torch.randint(2**31, ())))
        return torch.tensor([[self.draw(count, own, generator) for own in heard.tolist()] for _ in range(2)])

    def draw(self, count: int, heard: int, generator: random.Random) -> list[int]:
        """Draw a mask among the first `heard` rows of patches, as rising indices of the whole window's patches."""
        rows, columns = self.network.config.grid
        mask = draw_mask(count, heard, columns, generator)
        return [patch // heard * rows + patch % heard for patch in mask]

    def read_measures(self) -> dict[str, float]:
        """Give the means of `MEASURES` since the last call."""
        means = {name: value / max(self.counted, 1) for name, value in self.sums.items()}
        self.sums, self.counted = dict.fromkeys(MEASURES, 0.0), 0
        return means


def heard_rows(input_features: torch.Tensor, patch_size: int) -> torch.Tensor:
    """
    Count the rows of patches up to the last frame that is no padding, (windows,), at least one.

    Padding has the same value in all mel bins.
    """
    sounds = input_features.amax(-1) > input_features.amin(-1)  # (windows, frames)
    frames = torch.arange(1, sounds.shape[1] + 1, device=sounds.device)
    return ((sounds * frames).amax(-1) // patch_size).clamp(min=1)


class MaskedPatchTrainer(MacTrainer):
    """A trainer that logs both losses and how often a masked patch is told from the others."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of `MEASURES` on this process since the last line."""
        if "loss" in logs:
            pupil = self.accelerator.unwrap_model(self.model)
            logs |= {name: round(value, 4) for name, value in pupil.read_measures().items()}
        super().log(logs, start_time)


def collate_windows(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Put the windows of all recordings together; the trainer takes the files' names, to name them in faults."""
    return {
        "input_features": torch.cat([example["input_features"] for example in examples]),
        "audio": [example["audio"] for example in examples],  # type: ignore[dict-item]
    }


def make_masked_patch_trainer(stage: Stage, materials: Materials) -> MacTrainer:
    """Make a trainer of the audio tower alone, which learns from masked patches."""
    scenes: Any = make_training_set(stage.data, materials.processor, stage.training.seed, materials.tables)
    return MaskedPatchTrainer(
        MaskedPatchPupil(materials.model.model.audio_tower, stage.recipe.masked_patches),
        stage.training,
        recipe=stage.recipe,
        train_dataset=scenes,
        data_collator=collate_windows,
    )

"""
EAT's own self-supervised pre-training (arXiv 2401.03497, section 3), as a trial against the imitation of a teacher.

    python recipes/pretrain_eat.py --model model_cards/mac-small --data runs/everyday/scenes-0/scenes.csv \
        --minutes 15 --output runs/eat

The encoder of `--model` starts from random weights, hears a fifth of the patches of each window, and tells from them
what a moving average of itself makes of the whole: its tokens under the masks, and their mean. `--output` is then a
`base_model` for a recipe. `--minutes` are those of the processor, so that trials beside other work compare.
"""

import argparse
import copy
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from modeling_mac import EatModel, MacForConditionalGeneration
from processing_mac import MacProcessor
from processing_mac.dataset_mac import read_manifest
from training_mac.data.features import LogMels


SHOWN = 0.2  # share of the patches that the student hears
BLOCK = 5  # rows and columns of a block of patches that are shown together
MASKS = 6  # ways in which each window is masked, which share one pass of the teacher
WINDOWS = 12  # in a step
RATE, WARMUP = 5e-4, 100  # learning rate, and steps until it is reached
STEADY = 0.999, 0.9999  # share of the teacher that stays at each step, at first and at last


class Decoder(nn.Module):
    """Two convolutions over the grid that tell the tokens under the masks from those that are shown."""

    def __init__(self, dim: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        self.masked = nn.Parameter(torch.randn(dim) * 0.02)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=math.gcd(dim, 32)), nn.GroupNorm(1, dim), nn.GELU())
            for _ in range(2)
        )
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Tell all tokens (windows, patches, dim) from the tokens (windows, kept, dim) of the patches `shown`."""
        places = shown.unsqueeze(-1).expand(-1, -1, tokens.shape[2])
        all_tokens = self.masked.expand(len(tokens), math.prod(self.grid), -1).scatter(1, places, tokens)
        grid = all_tokens.mT.unflatten(2, self.grid)  # (windows, dim, rows, columns)
        for block in self.blocks:
            grid = grid + block(grid)
        return self.out(grid.flatten(2).mT)


class Pretraining(nn.Module):
    """
    A student that hears parts of windows, and its moving average that hears them whole.

    Args:
        tower: The student, which is trained in place.
    """

    def __init__(self, tower: EatModel):
        super().__init__()
        self.student = tower
        self.teacher = copy.deepcopy(tower).eval().requires_grad_(False)
        self.decoder = Decoder(tower.config.hidden_size, tower.config.grid)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Compute the loss of windows of log-mels, (windows, frames, mel bins)."""
        with torch.no_grad():
            aim = self.aim(windows)  # (windows, patches, dim)
        shown = torch.stack([draw_blocks(self.student.config.grid) for _ in range(MASKS * len(windows))])
        windows, aim = windows.repeat_interleave(MASKS, 0), aim.repeat_interleave(MASKS, 0)
        heard = self.student(windows, kept_patches=shown).last_hidden_state
        guess = self.decoder(heard[:, 1:].float(), shown)
        masked = torch.ones(guess.shape[:2], dtype=torch.bool).scatter(1, shown, False)
        return nn.functional.mse_loss(guess[masked], aim[masked]) + nn.functional.mse_loss(
            heard[:, 0].float(), aim.mean(1)
        )

    def aim(self, windows: torch.Tensor) -> torch.Tensor:
        """The mean of what the teacher's layers make of each patch, normalised, (windows, patches, dim)."""
        layers = self.teacher(windows, output_hidden_states=True).hidden_states[1:]
        dim = layers[0].shape[2:]
        normed = [nn.functional.layer_norm(layer[:, 1:].float(), dim) for layer in layers]
        return nn.functional.layer_norm(torch.stack(normed).mean(0), dim)

    @torch.no_grad()
    def follow(self, steady: float) -> None:
        """Move the teacher towards the student."""
        for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            old.lerp_(new, 1 - steady)


def draw_blocks(grid: tuple[int, int]) -> torch.Tensor:
    """Draw the patches that are shown, (kept,): whole blocks, of the last one a part."""
    kept = round(SHOWN * math.prod(grid))
    shown = torch.zeros(grid, dtype=torch.bool)
    while shown.sum() < kept:
        row, column = (int(torch.randint(max(size - BLOCK + 1, 1), ())) for size in grid)
        shown[row : row + BLOCK, column : column + BLOCK] = True
    patches = shown.flatten().nonzero().squeeze(1)
    return patches[torch.randperm(len(patches))[:kept]]


def pretrain(tower: EatModel, batches: Iterator[torch.Tensor], minutes: float) -> int:
    """Train a tower on batches of windows for so many minutes of the processor; return the number of steps."""
    model, start, steps, share = Pretraining(tower.train()), time.process_time(), 0, 0.0
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.95), weight_decay=0.05)
    while share < 1:
        rate = RATE * min(1, (steps + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * share))
        optimizer.param_groups[0]["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(next(batches))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        model.follow(STEADY[0] + share * (STEADY[1] - STEADY[0]))
        steps, share = steps + 1, (time.process_time() - start) / (60 * minutes)
        if steps % 20 == 0:
            print(f"step {steps}  {100 * share:.0f} %  loss {loss.item():.4f}", flush=True)
    return steps


def batches_of(files: list[str], extractor: object, cache: str | None) -> Iterator[torch.Tensor]:
    """Go through the first windows of recordings again and again, in another order each time."""
    log_mels = LogMels(files, extractor, cache)
    while True:
        for rows in torch.randperm(len(files)).split(WINDOWS):
            yield torch.cat([extractor.to_windows(log_mels[int(row)].float())[:1] for row in rows])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a MAC with an EAT encoder")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="manifests of recordings")
    parser.add_argument("--cache", help="folder that keeps the log-mels, as `cache_features` of a recipe")
    parser.add_argument("--minutes", type=float, default=15, help="of the processor (default: 15)")
    parser.add_argument("--seed", type=int, default=0, help="of every choice (default: 0)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new MAC")
    options = parser.parse_args(arguments)
    if options.minutes <= 0:
        parser.error(f"--minutes {options.minutes}: expected more than 0")
    torch.manual_seed(options.seed)
    try:
        model = MacForConditionalGeneration.from_pretrained(options.model).float()
        processor = MacProcessor.from_pretrained(options.model)
        if not isinstance(model.model.audio_tower, EatModel):
            raise ValueError(f"{options.model}: its encoder is no EAT.")
        files = [str(clip.audio) for path in options.data for clip in read_manifest(path)]
        model.model.audio_tower = EatModel(model.config.audio_config)
        batches = batches_of(files, processor.feature_extractor, options.cache)
        steps = pretrain(model.model.audio_tower, batches, options.minutes)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    model.save_pretrained(options.output)
    processor.save_pretrained(options.output)
    print(f"{options.output}: {steps} steps of {WINDOWS} windows", file=sys.stderr)


if __name__ == "__main__":
    main()

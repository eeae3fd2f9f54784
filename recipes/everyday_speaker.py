"""
A language model that learns to tell what is heard from the scores of tags alone, in place of an encoder's tokens.

What the connector of a MAC makes of tokens are these scores (`everyday_new_encoder.py`), so only its second layer and
what is behind it is computed: an example costs no more than its text.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from everyday_collages import Example, Examples
from everyday_state import finite, load_state, save_state
from torch import nn

from modeling_mac import MacForConditionalGeneration
from processing_mac import MacProcessor
from training_mac.objectives.embeddings import EmbeddingPupil


WARMUP, LAST = 100, 0.01  # steps until the rate is reached, and share of it that is left at the end
BETAS, CLIPPED, DECAY = (0.9, 0.98), 1.0, 0.05  # of AdamW, greatest norm of the gradients, and decay of the matrices
POOL = 8  # batches that are drawn at a time and sorted by length, so that little of a batch is padding
LONG_BATCH, FEWEST = 2, 4  # windows that a batch of long examples has for each of --batch, and examples of it at least
SAVED, SAID = 240.0, 30.0  # seconds from one state to the next, and from one line of progress to the next
COUNTED = ("step", "seconds", "pool", "taken")  # what a state consists of, beside weights and optimizer
TOWER = "model.audio_tower."
FROZEN = (TOWER, "model.connector.linear_1.")


@dataclass
class Run:
    """
    What a training consists of, and how far it is.

    Args:
        model: MAC whose language model and second layer of the connector learn.
        optimizer: Optimizer of these.
        settings: What must not change when the run goes on.
        step: Number of steps done.
        seconds: How long they took.
        pool: Number of the pool of examples that the next batch is taken from.
        taken: Number of batches that have been taken from it.
    """

    model: MacForConditionalGeneration
    optimizer: torch.optim.Optimizer
    settings: dict[str, Any]
    step: int = 0
    seconds: float = 0.0
    pool: int = 0
    taken: int = 0

    def save(self, path: Path) -> None:
        """Write all of it but the encoder, which `--model` has, as one file that is whole or not there."""
        weights = {name: value for name, value in self.model.state_dict().items() if not name.startswith(TOWER)}
        state = {"weights": weights, "optimizer": self.optimizer.state_dict()}
        save_state(path, state | {name: getattr(self, name) for name in COUNTED}, self.settings)

    def load(self, path: Path) -> None:
        """
        Go on from what `save` wrote.

        Raises:
            ValueError: The file is no state of a run with these settings.
        """
        state = load_state(path, ("weights", "optimizer", *COUNTED), self.settings, torch.device("cpu"))
        self.model.load_state_dict(state["weights"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        for name in COUNTED:
            setattr(self, name, state[name])


def make_run(options: argparse.Namespace, model: MacForConditionalGeneration, learnt_from: dict[str, str]) -> Run:
    """Make a run that has not begun; what it learns from must not change either when it goes on."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith(FROZEN))
    learnt = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in learnt if weight.ndim > 1], "weight_decay": DECAY},
        {"params": [weight for weight in learnt if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    settings = {f"--{name}": getattr(options, name) for name in ("batch", "rate", "seed", "bf16")}
    settings |= learnt_from
    return Run(model, torch.optim.AdamW(groups, lr=options.rate, betas=BETAS), settings)


def train(run: Run, examples: Examples, processor: MacProcessor, options: argparse.Namespace) -> None:
    """
    Train until the time is over or the steps are done, and save the state now and then.

    Raises:
        ValueError: The loss is no number any more.
    """
    stream, losses, drawn = batches(examples, options.batch, options.seed, run.pool, run.taken), [], 0
    last = saved = said = time.monotonic()
    run.model.train()
    while (share := run.step / options.steps if options.steps else run.seconds / (60 * options.minutes)) < 1:
        run.pool, run.taken, batch = next(stream)
        rate = options.rate * schedule(run.step, share)
        losses.append(do_step(run, batch, processor, rate, options.bf16))
        now = time.monotonic()
        run.step, run.seconds, last, drawn = run.step + 1, run.seconds + now - last, now, drawn + len(batch)
        if now - said >= SAID or run.step == options.steps:
            loss, speed = finite(torch.stack(losses).mean(), run.step), drawn / max(now - said, 1e-6)
            minutes = run.seconds / 60
            print(f"step {run.step}  {minutes:.1f} min  {speed:.0f} examples/s  loss {loss:.3f}", flush=True)
            losses, drawn, said = [], 0, now
        if now - saved >= SAVED:
            finite(sum(losses, torch.zeros(())), run.step)  # what is saved must be worth going on from
            run.save(options.output / "state.pt")
            saved = now
    finite(sum(losses, torch.zeros(())), run.step)


def schedule(step: int, share: float) -> float:
    """Give the share of the rate: a warm-up, then a cosine."""
    return min(1, (step + 1) / WARMUP) * (LAST + (1 - LAST) * (0.5 + 0.5 * math.cos(math.pi * share)))


def batches(
    examples: Examples, size: int, seed: int, pool: int = 0, taken: int = 0
) -> Iterator[tuple[int, int, list[Example]]]:
    """
    Draw batches of examples of like length without end, fewer examples where they are long.

    Args:
        examples: Draws the examples.
        size: Number of examples of one window in a batch.
        seed: Number that all choices depend on.
        pool, taken: Pool to begin in, and number of its batches that have been taken.

    Yields:
        The number of the pool, how many batches have now been taken from it, and the batch.
    """
    for number in count(pool):
        rng = np.random.default_rng([seed, number])
        drawn = sorted((examples.draw(rng) for _ in range(POOL * size)), key=lambda one: len(one.scores))
        parts = part_by_length(drawn, size, examples.rows)
        order = rng.permutation(len(parts)).tolist()
        for place in range(taken, len(parts)):
            yield number, place + 1, parts[order[place]]
        taken = 0


def part_by_length(drawn: list[Example], size: int, rows: int) -> list[list[Example]]:
    """Part examples that are sorted by length into batches of a size, or of a number of windows of so many rows."""
    parts, first = [], 0
    while first < len(drawn):
        longest = len(drawn[min(first + size, len(drawn)) - 1].scores)
        end = first + (size if longest <= rows else min(size, max(FEWEST, LONG_BATCH * size * rows // longest)))
        parts.append(drawn[first:end])
        first = end
    return parts


def do_step(run: Run, batch: list[Example], processor: MacProcessor, rate: float, bf16: bool) -> torch.Tensor:
    """Train on one batch, and return the loss."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    rows = run.model.config.audio_config.grid[0]
    windows = [len(example.scores) // rows for example in batch]
    text = processor.encode(windows, answer=[example.caption for example in batch])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        embeds = embed(run.model, text["input_ids"], torch.cat([example.scores for example in batch]))
        loss = run.model(inputs_embeds=embeds, attention_mask=text["attention_mask"], labels=text["labels"]).loss
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), CLIPPED)
    run.optimizer.step()
    return loss.detach()


def embed(model: MacForConditionalGeneration, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """
    Embed text and, in place of `<|audio|>`, what the connector makes of tokens with these scores of the tags.

    Args:
        model: MAC whose connector's first units are the scores, and whose others give nothing.
        input_ids: Token ids, (batch, length).
        scores: Scores of the rows of all windows, one after another, (rows, tags).

    Returns:
        (batch, length, width)
    """
    layer = model.model.connector.linear_2
    units = nn.functional.gelu(scores + EmbeddingPupil.doubt)
    units = nn.functional.pad(units, (0, layer.in_features - scores.shape[1]))
    audio = layer(units).unflatten(0, (-1, model.config.audio_config.grid[0]))  # (windows, rows, width)
    return model.model.insert_audio(input_ids, model.get_input_embeddings()(input_ids), audio)

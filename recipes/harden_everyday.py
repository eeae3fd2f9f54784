"""
An encoder learns to hear damaged recordings as it hears whole ones: MP3s, telephones, rooms, what is too loud.

    python recipes/harden_everyday.py --model runs/told --data runs/everyday/train.csv --minutes 45 --threads 1 \
        --bf16 --output runs/hardened

Scenes are planned and rendered as for `hear_everyday.py`, and most of them then damaged (`everyday_damage.py`). The
encoder of `--model`, as it is, hears the whole ones; a copy of it learns to give the same tokens, and the same scores
of the tags in the first layer of the connector, for the damaged ones. So it needs neither a teacher nor captions, and
the language model goes on reading what it has learnt to read. A few scenes are tones and noises, which are to be
heard as others that are known (`everyday_plain.py`). At the end the weights go a part of the way (`--share`) from
what they were to what was learnt, since all of it costs where nothing is damaged.

While the training goes on `state.pt` is in `--output`, from which the same command goes on if it is stopped. One core
is enough.
"""

import argparse
import copy
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, default_convert


sys.path.insert(0, str(Path(__file__).parent))

from everyday_bank import RATE, Bank, load_bank
from everyday_damage import check_codecs, damage
from everyday_grammar import Grammar
from everyday_new_encoder import check_model
from everyday_plain import plain_pair
from everyday_planning import PATCH, Plan, Planner
from everyday_rendering import BatchedFeatures, Renderer
from everyday_scenes import numbers, seed_torch
from everyday_state import AveragedRun, finite
from everyday_training import check_training, follow, part_weights, schedule

from modeling_mac import EatModel, MacForConditionalGeneration
from processing_mac import MacFeatureExtractor, MacProcessor
from processing_mac.caption_options_mac import thread_count
from processing_mac.feature_extraction_mac import FRAME_SHIFT
from processing_mac.whole_files_mac import write_files_into
from training_mac.examples.encoded import digest_of_weights
from training_mac.run.saving import save_whole_model


UNDAMAGED = 0.3  # share of the scenes that are kept whole; of the others, too, `damage` leaves some as they are
PLAIN = 0.1  # share of the scenes in whose place there is a tone or a noise
WHOLE = 0.25  # share of the steps with whole windows; the others have halves, as most recordings are shorter
WARMUP = 100  # steps until the rate is reached
FLAT, LAST = 0.3, 0.03  # share of the time with a flat rate, and share of the rate that is left at the end
BETAS, DECAY, CLIPPED = (0.9, 0.98), 0.02, 1.0  # of AdamW, and the greatest norm of the gradients
STEADY = 0.995  # share of the average of the weights that stays at each step
TOKENS = 0.5  # weight of the tokens in the loss; that of the scores, which the language model reads, is 1
SCENES, STEPS = range(2)  # what chance is for, so that each purpose has another
AHEAD = 4  # batches that are made ahead
SAVED, SAID = 120.0, 30.0  # seconds from one state to the next, and from one line of progress to the next


@dataclass(kw_only=True)
class Run(AveragedRun):
    """
    What a training consists of, and how far it is.

    Args:
        tower: Encoder that is trained.
        average: Moving average of its weights.
    """

    learnt = ("tower", "average", "optimizer")

    tower: EatModel
    average: EatModel


class Pairs(IterableDataset):
    """
    Scenes as they are and mostly damaged, without end: two batches of log-mels, (windows, frames, mel bins) each.

    Some are tones and noises: of those the first is known, and the second is to be heard like it.

    Every batch is made of a seed of its own, whichever process makes it.

    Args:
        bank: Recordings that scenes are made of.
        extractor: Makes log-mels.
        tags: Number of tags of the grammar, which plans ask for.
        rows: Rows of patches of a whole window.
        batch: Whole windows in a batch, or as much audio in halves.
        seed: Of every choice.
        first: Number of the first batch.
    """

    def __init__(
        self, bank: Bank, extractor: MacFeatureExtractor, tags: int, rows: int, batch: int, seed: int, first: int
    ):
        if rows * PATCH != extractor.window_frames * FRAME_SHIFT:
            raise ValueError(f"rows of patches are of {PATCH / RATE:g} s here; the model's are not.")
        self.seed, self.first = seed, first
        self.features = BatchedFeatures(extractor)
        half = min(rows, max(rows // 2, -(-RATE // PATCH)))  # a scene is of a second or more
        self.planners, self.renderers = {}, {}
        for size in (half, rows):
            samples = size * PATCH
            self.planners[size] = Planner(bank.recordings, tags, max(1, batch * rows // size), samples)
            self.renderers[size] = Renderer(bank.waves, samples)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return map(self.make, numbers(self.first))

    def make(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the batch of this number."""
        rng = np.random.default_rng([self.seed, number])
        half, whole = min(self.planners), max(self.planners)
        rows = whole if rng.random() < WHOLE else half
        plan: Plan = default_convert(self.planners[rows].plan(rng))
        with torch.random.fork_rng(devices=[]):  # the renderer takes torch's own random numbers
            seed_torch(self.seed, SCENES, number)
            waves = self.renderers[rows](plan)
        damaged = waves.clone()
        for wave, other, length in zip(waves.numpy(), damaged.numpy(), plan.lengths.tolist(), strict=True):
            if (kind := rng.random()) < PLAIN:
                wave[:length], other[:length] = plain_pair(length, rng)
            elif kind < 1 - UNDAMAGED:
                other[:length] = damage(other[:length], rng)
        frames = rows * PATCH // FRAME_SHIFT
        clean, hurt = (self.features(some, plan.lengths)[0][:, :frames] for some in (waves, damaged))
        return clean, hurt


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of hear_everyday.py or tell_everyday.py")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="manifests of the recordings")
    parser.add_argument("--minutes", type=float, default=45, help="of the training (default: 45)")
    parser.add_argument("--steps", type=int, help="of the training, in place of --minutes")
    parser.add_argument("--batch", type=int, default=8, help="windows in a step (default: 8)")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate (default: 2e-4)")
    parser.add_argument("--share", type=float, default=0.7,
                        help="of the change of the weights that is kept, up to 1 (default: 0.7)")  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, help="processes that make scenes (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of every choice (default: 0)")
    parser.add_argument("--threads", type=thread_count, help="of the processor (default: one a core)")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16: faster where a processor knows it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu",
                        help="that trains (default: a GPU if there is one)")  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, help="folder of the new MAC")
    options = parser.parse_args(arguments)
    try:
        check_options(options)
        harden(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def check_options(options: argparse.Namespace) -> None:
    """
    Refuse what cannot be, before anything is read.

    Raises:
        ValueError: A value is impossible, `--output` is finished, or libsndfile lacks a codec.
    """
    check_training(options, ("minutes", "steps", "batch", "rate", "share"))
    if options.share > 1:
        raise ValueError(f"--share {options.share}: expected 1 at most")
    if not (options.model / "config.json").is_file():
        raise ValueError(f"--model {options.model}: no MAC is there")
    check_codecs()


def harden(options: argparse.Namespace) -> None:
    """Train an encoder and write the MAC that hears with it."""
    if options.threads:
        torch.set_num_threads(options.threads)
    grammar = Grammar()
    model = MacForConditionalGeneration.from_pretrained(options.model).float().eval()
    processor = MacProcessor.from_pretrained(options.model)
    try:
        check_model(model, len(grammar.tags))
    except ValueError as error:
        raise ValueError(f"{options.model}: {error}") from error
    bank = load_bank(options.data, grammar, options.workers)
    print(f"{len(bank.recordings)} recordings, {len(bank.waves) / RATE / 3600:.2f} h", flush=True)
    run, state = make_run(options, model), options.output / "state.pt"
    options.output.mkdir(parents=True, exist_ok=True)
    if state.is_file():
        run.load(state)
        print(f"{state}: goes on from step {run.step}", flush=True)
    rows = model.config.audio_config.grid[0]
    pairs = Pairs(
        bank, processor.feature_extractor, len(grammar.tags), rows, options.batch, options.seed, first=run.step
    )
    train(run, model, pairs, options)
    run.save(state)
    with torch.no_grad():
        torch._foreach_lerp_(list(model.model.audio_tower.parameters()), list(run.average.parameters()), options.share)
    with write_files_into(options.output) as folder:
        save_whole_model(model.cpu(), processor, folder, store_float16=True)
    state.unlink()
    print(f"{options.output}: {run.step} steps of {options.batch} windows", file=sys.stderr)


def make_run(options: argparse.Namespace, model: MacForConditionalGeneration) -> Run:
    """Make a run that has not begun."""
    torch.manual_seed(options.seed)
    tower = copy.deepcopy(model.model.audio_tower).to(options.device).train()
    average = copy.deepcopy(tower).eval().requires_grad_(False)
    matrices, vectors = part_weights(tower)
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    settings = {f"--{name}": getattr(options, name) for name in ("batch", "rate", "seed", "bf16")}
    settings |= {"--data": " ".join(map(str, options.data))}
    settings |= {"an encoder of --model of the digest": digest_of_weights(model.model.audio_tower)}
    return Run(
        tower=tower,
        average=average,
        optimizer=torch.optim.AdamW(groups, lr=options.rate, betas=BETAS),
        settings=settings,
        device=torch.device(options.device),
    )


def train(run: Run, model: MacForConditionalGeneration, pairs: Pairs, options: argparse.Namespace) -> None:
    """
    Train until the time is over or the steps are done, and save the state now and then.

    Args:
        run: What is trained.
        model: MAC whose encoder hears the scenes as they are, and whose connector tells the scores.
        pairs: Scenes to train on.
        options: Options of the command.

    Raises:
        ValueError: The loss is no number any more.
    """
    model.to(options.device).requires_grad_(False)
    ahead = AHEAD if options.workers else None
    batches = iter(DataLoader(pairs, batch_size=None, num_workers=options.workers, prefetch_factor=ahead))
    last = saved = said = time.monotonic()
    losses: list[torch.Tensor] = []
    errors: torch.Tensor | None = None
    while (share := run.step / options.steps if options.steps else run.seconds / (60 * options.minutes)) < 1:
        clean, hurt = (windows.to(options.device) for windows in next(batches))
        errors = do_step(run, model, clean, hurt, options, share)
        losses.append(errors)
        now = time.monotonic()
        run.step, run.seconds, last = run.step + 1, run.seconds + now - last, now
        if now - said >= SAID or run.step == options.steps:
            finite(errors.sum(), run.step)
            scores, tokens = torch.stack(losses).mean(0)
            speed = options.batch * len(losses) / max(now - said, 1e-6)
            lost = f"share of the variance lost to damage: scores {scores:.3f}, tokens {tokens:.3f}"
            print(f"step {run.step}  {run.seconds / 60:.1f} min  {speed:.1f} windows/s  {lost}", flush=True)
            losses, said = [], now
        if now - saved >= SAVED:
            finite(errors.sum(), run.step)  # what is saved must be worth going on from
            run.save(options.output / "state.pt")
            saved = now
    if errors is not None:
        finite(errors.sum(), run.step)


def do_step(
    run: Run,
    model: MacForConditionalGeneration,
    clean: torch.Tensor,
    hurt: torch.Tensor,
    options: argparse.Namespace,
    share: float,
) -> torch.Tensor:
    """Train on one batch when `share` of the training is over, and return the errors of scores and tokens, (2,)."""
    for group in run.optimizer.param_groups:
        group["lr"] = options.rate * schedule(run.step, share, WARMUP, FLAT, LAST)
    tower, head = model.model.audio_tower, model.model.connector.linear_1
    # What is dropped at random while the encoder trains is another thing at each step, in a run that goes on, too.
    seed_torch(options.seed, STEPS, run.step)
    with torch.no_grad():
        aims = hear(tower, clean, options)
    tokens = hear(run.tower, hurt, options)
    errors = torch.stack([relative(head(tokens), head(aims)), relative(tokens, aims)])
    (errors[0] + TOKENS * errors[1]).backward()
    nn.utils.clip_grad_norm_(run.tower.parameters(), CLIPPED)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    follow(run.average.parameters(), run.tower.parameters(), run.step, STEADY)
    return errors.detach()


def hear(tower: EatModel, windows: torch.Tensor, options: argparse.Namespace) -> torch.Tensor:
    """Encode windows of any number of rows of patches, (windows, rows, columns * dim), as the connector reads them."""
    with torch.autocast(torch.device(options.device).type, torch.bfloat16, enabled=options.bf16):
        tokens = tower(windows).last_hidden_state[:, 1:]
    return tokens.float().unflatten(1, (-1, tower.config.grid[1])).flatten(2)


def relative(told: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
    """Mean squared error of (windows, rows, n) as a share of the variance of what is to be told."""
    return (told - aims).square().mean() / aims.var((0, 1)).mean()


if __name__ == "__main__":
    main()

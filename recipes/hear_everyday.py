"""
An encoder that learns to hear everyday sounds anew, from scenes that are mixed while it learns, on one GPU.

    python recipes/hear_everyday.py --model model_cards/mac-small --data runs/everyday/train.csv \
        --teacher yamnet.tflite --minutes 9 --compile --output runs/heard

Each step plans, renders and hears other scenes of `--data`, a manifest of `prepare_everyday.py`: one to three
recordings at other speeds, through other filters, in other rooms, at other levels. The encoder must tell the principal
components of what YAMNet hears in each of its rows of patches (`everyday_pupil.py`) and, in the last quarter, the tags
of each stretch. A recording with an empty `source` is heard, too, but nobody asks for its tags.

`--output` is then what `tell_everyday.py` goes on from, or the `base_model` of a recipe: the language model, the
tokenizer and the second layer of the connector of `--model` behind the new encoder, whose scores of the tags are the
first units of the connector. `--output/untaught` is the same with the encoder as it was before the tags began to enter
it. While the training goes on `state.pt` is there, from which the same command goes on if it is stopped.
"""

import argparse
import copy
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path

import torch
import torch._dynamo
from torch import nn


sys.path.insert(0, str(Path(__file__).parent))

from everyday_bank import RATE, load_bank
from everyday_grammar import Grammar
from everyday_new_encoder import check_model, new_tower, put_together
from everyday_planning import PATCH, Planner
from everyday_pupil import Components, Pupil, at_rows, mean_heard, start_small
from everyday_rendering import BatchedFeatures, Renderer
from everyday_scenes import Batch, Scenes
from everyday_state import AveragedRun, finite
from everyday_training import check_training, follow, part_weights, schedule
from yamnet_torch import WIDTH, choose_layout, load_yamnet

from modeling_mac import MacForConditionalGeneration
from processing_mac import MacProcessor
from processing_mac.whole_files_mac import write_files_into, write_folder_whole
from training_mac.objectives.whitening import whiten_patches
from training_mac.run.saving import save_whole_model


COMPONENTS = 256  # that are told of the teacher's embeddings
GROUPS = (0, 4, 16, 32, 64, 128, 256)  # borders of the groups of components in the lines of progress
STATISTICS = 24  # batches of scenes that the components are fitted on
WARMUP = 600  # steps until the rate is reached
FLAT, LAST = 0.5, 0.02  # share of the time with a flat rate, and share of the rate that is left at the end
BETAS, CLIPPED = (0.9, 0.98), 1.0  # of AdamW, and the greatest norm of the gradients
# A head reads eight tokens at a time, so that a step of Adam moves what it tells by far more than a layer.
HEAD_RATE = 0.15
DECAY, HEAD_DECAY = 0.05, 0.1  # of the encoder's matrices, and of the heads
STEADY = 0.9985  # share of the average of the weights that stays at each step
TAGS_FROM, TAG_WEIGHT = 0.75, 0.15  # share of the time from which the encoder learns the tags, and their weight
SAVED, SAID = 120.0, 10.0  # seconds from one state to the next, and from one line of progress to the next
FITTING, TRAINING = range(2)  # what scenes are for, so that each purpose has others


@dataclass(kw_only=True)
class Run(AveragedRun):
    """
    What a training consists of, and how far it is.

    Args:
        pupil: What is trained.
        average: Moving average of its weights.
        taught: Whether the tags have begun to enter the encoder.
    """

    learnt = ("pupil", "average", "optimizer")
    counted = ("step", "seconds", "taught")

    pupil: Pupil
    average: Pupil
    taught: bool = False


class Progress:
    """Collects what is told of the components from one line of progress to the next."""

    def __init__(self) -> None:
        self.errors, self.variances = torch.zeros(()), torch.zeros(())
        self.missed, self.steps, self.start = torch.zeros(()), 0, time.monotonic()

    def add(self, errors: torch.Tensor, variances: torch.Tensor, missed: torch.Tensor) -> None:
        """Add a step's errors and variances of the components, (components,), and its loss of the tags."""
        self.errors, self.variances = self.errors.to(errors) + errors, self.variances.to(errors) + variances
        self.missed, self.steps = self.missed.to(missed) + missed, self.steps + 1

    def line(self, run: Run, batch: int, loss: float) -> str:
        """Make a line."""
        speed = self.steps * batch / max(time.monotonic() - self.start, 1e-6)
        told = 1 - self.errors / self.variances
        borders = [border for border in GROUPS if border < len(told)] + [len(told)]
        groups = [f"{a}-{b}: {told[a:b].mean():.3f}" for a, b in pairwise(borders)]
        tags = float(self.missed) / self.steps
        return (
            f"step {run.step}  {run.seconds / 60:.1f} min  {speed:.0f} windows/s  loss {loss:.3f}  tags {tags:.3f}  "
            f"told of components {', '.join(groups)}"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a MAC with an EAT encoder")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="manifests of the recordings")
    parser.add_argument("--teacher", type=Path, required=True, help="yamnet.tflite")
    parser.add_argument("--minutes", type=float, default=9, help="of the training (default: 9)")
    parser.add_argument("--steps", type=int, help="of the training, in place of --minutes")
    parser.add_argument("--batch", type=int, default=128, help="scenes in a step (default: 128)")
    parser.add_argument("--depth", type=int, default=8, help="layers of the encoder (default: 8)")
    parser.add_argument("--width", type=int, default=256, help="size of its tokens (default: 256)")
    parser.add_argument("--heads", type=int, default=4, help="heads of its attention (default: 4)")
    parser.add_argument("--rate", type=float, default=8e-4, help="learning rate (default: 8e-4)")
    parser.add_argument("--workers", type=int, default=min(12, (os.cpu_count() or 1) - 1),
                        help="processes that read and plan (default: up to 12)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of every choice (default: 0)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu",
                        help="that trains (default: a GPU if there is one)")  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="compile the encoder's layers")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new MAC")
    options = parser.parse_args(arguments)
    try:
        check_options(options)
        hear(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def check_options(options: argparse.Namespace) -> None:
    """
    Refuse what cannot be, before anything is read.

    Raises:
        ValueError: A value is impossible, or `--output` is finished.
    """
    check_training(options, ("minutes", "steps", "batch", "depth", "width", "heads", "rate"))
    if options.width % 4 or options.width % options.heads:
        raise ValueError(f"--width {options.width}: expected a multiple of 4 and of --heads {options.heads}")
    if (options.output / "untaught").exists() and not (options.output / "state.pt").is_file():
        raise ValueError(f"{options.output / 'untaught'} is of another run: remove it, or name another --output")


def hear(options: argparse.Namespace) -> None:
    """Train an encoder and write the MAC that hears with it."""
    grammar, device = Grammar(), torch.device(options.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    model = MacForConditionalGeneration.from_pretrained(options.model).float()
    processor = MacProcessor.from_pretrained(options.model)
    try:
        check_model(model, len(grammar.tags))
    except ValueError as error:
        raise ValueError(f"{options.model}: {error}") from error
    teacher = load_yamnet(options.teacher, torch.float16 if device.type == "cuda" else torch.float32).to(device)
    bank = load_bank(options.data, grammar, options.workers)
    print(f"{len(bank.recordings)} recordings, {len(bank.waves) / RATE / 3600:.2f} h", flush=True)
    planner = Planner(bank.recordings, len(grammar.tags), options.batch, model.config.audio_config.grid[0] * PATCH)
    features = BatchedFeatures(processor.feature_extractor).to(device)
    scenes = Scenes(planner, Renderer(bank.waves, planner.samples).to(device), features, options.seed, options.workers)
    if device.type == "cuda":
        choose_layout(teacher, options.batch * scenes.rows // 3)  # three rows of patches have one embedding
    torch.manual_seed(options.seed)
    run = make_run(options, new_tower(model, options.depth, options.width, options.heads), len(grammar.tags), device)
    state = options.output / "state.pt"
    options.output.mkdir(parents=True, exist_ok=True)
    if state.is_file():
        run.load(state)
        print(f"{state}: goes on from step {run.step}", flush=True)
    else:
        prepare(run, scenes, teacher)

    def save_average(folder: Path) -> None:
        pupil = copy.deepcopy(run.average).cpu()
        new = put_together(model, pupil.audio_tower, pupil.tags)
        save_whole_model(new, processor, folder, store_float16=True)

    train(run, scenes, teacher, options, save_average)
    run.save(state)
    with write_files_into(options.output) as folder:
        save_average(folder)
    state.unlink()
    print(f"{options.output}: {run.step} steps of {options.batch} windows", file=sys.stderr)


def make_run(options: argparse.Namespace, tower: nn.Module, tags: int, device: torch.device) -> Run:
    """Make a run that has not begun."""
    pupil = Pupil(tower, Components(WIDTH, COMPONENTS), tags).to(device)
    start_small(pupil.audio_tower)
    heads = [*pupil.imitate.parameters(), *pupil.tags.parameters()]
    matrices, vectors = part_weights(pupil.audio_tower)
    groups = [
        {"params": matrices, "weight_decay": DECAY, "scale": 1.0},
        {"params": vectors, "weight_decay": 0.0, "scale": 1.0},
        {"params": heads, "weight_decay": HEAD_DECAY, "scale": HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=BETAS, fused=device.type == "cuda")
    average = copy.deepcopy(pupil).eval().requires_grad_(False)
    if options.compile:
        # Each layer is compiled by itself, and torch stops compiling the same code again after a few times.
        limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
        setattr(torch._dynamo.config, limit, max(getattr(torch._dynamo.config, limit), 2 * options.depth))
        for layer in pupil.audio_tower.layers:
            layer.compile(dynamic=False)
    settings = {f"--{name}": getattr(options, name) for name in ("batch", "depth", "width", "heads", "rate", "seed")}
    settings |= {"--teacher": str(options.teacher), "--data": " ".join(map(str, options.data))}
    return Run(pupil=pupil, average=average, optimizer=optimizer, settings=settings, device=device)


@torch.no_grad()
def prepare(run: Run, scenes: Scenes, teacher: nn.Module) -> None:
    """Find the components of what the teacher hears, and start the patch embedding from those of real patches."""
    batches = islice(scenes.draw(FITTING), STATISTICS)
    first = next(batches)
    heard = [window[:frames] for window, frames in zip(first.windows, first.frames.tolist(), strict=True)]
    whiten_patches(run.pupil.audio_tower.embeddings, heard)
    embeddings = (at_rows(teacher(batch.waves), scenes.rows)[batch.heard] for batch in chain([first], batches))
    run.pupil.components.fit(embeddings)
    run.average.load_state_dict(run.pupil.state_dict())


def train(
    run: Run,
    scenes: Scenes,
    teacher: nn.Module,
    options: argparse.Namespace,
    save_average: Callable[[Path], None],
) -> None:
    """
    Train until the time is over or the steps are done, and save the state now and then.

    Args:
        run: What is trained.
        scenes: Scenes to train on.
        teacher: YAMNet.
        options: Options of the command.
        save_average: Writes the MAC of the average into a folder; `untaught` gets that from before the tags enter.

    Raises:
        ValueError: The loss is no number any more.
    """
    batches, progress = scenes.draw(TRAINING, run.step), Progress()
    last = saved = said = time.monotonic()
    loss: torch.Tensor | None = None
    run.pupil.train()
    while (share := run.step / options.steps if options.steps else run.seconds / (60 * options.minutes)) < 1:
        if share >= TAGS_FROM and not run.taught:
            run.save(options.output / "state.pt")  # without one, `untaught` would be taken for that of another run
            with write_folder_whole(options.output / "untaught") as folder:
                save_average(folder)
            run.taught = True
        loss = do_step(run, next(batches), teacher, options.rate, share, progress)
        now = time.monotonic()
        run.step, run.seconds, last = run.step + 1, run.seconds + now - last, now
        if now - said >= SAID or run.step == options.steps:
            print(progress.line(run, options.batch, finite(loss, run.step)), flush=True)
            progress, said = Progress(), now
        if now - saved >= SAVED:
            finite(loss, run.step)  # what is saved must be worth going on from
            run.save(options.output / "state.pt")
            saved = now
    if loss is not None:
        finite(loss, run.step)


def do_step(run: Run, batch: Batch, teacher: nn.Module, rate: float, share: float, progress: Progress) -> torch.Tensor:
    """Train on one batch when `share` of the training is over, and return the loss."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["scale"] * schedule(run.step, share, WARMUP, FLAT, LAST)
    pupil, device = run.pupil, batch.waves.device
    aims = pupil.components(at_rows(teacher(batch.waves), batch.heard.shape[1]))  # (windows, rows, components)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        rows = pupil(batch.windows)
        errors = pupil.errors(rows, aims, batch.heard)
    # The head of the tags learns all the time, but what it asks for enters the encoder only at the end.
    named = rows if run.taught else rows.detach()
    missed = pupil.missed(named, batch.spans, batch.labels, batch.known)
    loss = (errors * pupil.components.weights).mean() + TAG_WEIGHT * missed
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(pupil.parameters(), CLIPPED)
    run.optimizer.step()
    follow(run.average.parameters(), pupil.parameters(), run.step, STEADY)
    progress.add(errors.detach(), mean_heard(aims.square(), batch.heard), missed.detach())
    return loss.detach()


if __name__ == "__main__":
    main()

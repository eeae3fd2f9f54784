"""
What weights of 8 bits or in bf16 do to what a model says: captions and naming of the shipped checkpoint, and a larger
one's loss.

    python benchmarks/int8_quality.py captions --esc50 FOLDER
    python benchmarks/int8_quality.py loss --captions FILE.csv --size 130m --steps 300

`captions` compares both with float32 on the recordings of a fold that `FOLDER/manifest.csv` lists. `loss` trains the
language model of a size on the captions of a CSV (columns `caption`, `caption_1`, …), for random weights would say
nothing, and compares the loss of every tenth caption, which was held out.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import torch
from int8 import quantised
from speed_models import SHAPES, build, cast
from transformers import AutoProcessor

from evaluation_mac.metrics.naming import load_naming
from modeling_mac import MacForConditionalGeneration, int8_mac
from modeling_mac.int8_mac import FAST_BF16
from processing_mac import SHIPPED_MODELS, load_captioner
from processing_mac.captioning_mac import caption_files


HELD_OUT = 10  # every so manyth caption is
LENGTH = 32  # tokens of a caption; the rest is cut
SMALL_TOO = "int8, small layers as large ones"  # which the checkpoints that ship do not have
AT_ONCE = (1, 20)  # captions that are read at once: few rows and many


def compare_captions(options: argparse.Namespace) -> dict[str, float]:
    """Share of equal captions, and the share of each that names its source and no other."""
    with (options.esc50 / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] == str(options.fold)]
    folders = (options.esc50, *(path for path in options.esc50.iterdir() if path.is_dir()))
    files = [next(str(f / row["file"]) for f in folders if (f / row["file"]).exists()) for row in rows]
    said, small = {}, int8_mac.SMALL
    ways = {"float32": {}, "int8": {"int8": True}, SMALL_TOO: {"int8": True}, "bf16": {"dtype": torch.bfloat16}}
    for name, way in ways.items():
        int8_mac.SMALL = 0 if name == SMALL_TOO else small
        captioner = load_captioner(options.model, device="cpu", **{"dtype": torch.float32, **way})
        said[name] = [result["caption"] for _, result in caption_files(captioner, files, options.batch_size)]
    naming, kinds = load_naming("esc50"), [row["category"] for row in rows]
    return {
        "recordings": len(files),
        **{f"equal, {name}": share_equal(said["float32"], said[name]) for name in ways if name != "float32"},
        **{f"naming, {name}": naming.accuracy(captions, kinds) for name, captions in said.items()},
    }


def share_equal(first: list[str], second: list[str]) -> float:
    """Share of captions that are the same in both lists."""
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def read_captions(path: Path) -> list[str]:
    """All captions of a CSV."""
    with path.open(newline="") as file:
        return [text for row in csv.DictReader(file) for name, text in row.items() if name.startswith("caption")]


def as_batch(texts: list[str]) -> dict[str, torch.Tensor]:
    """Captions by the tokenizer of mac-tiny: `input_ids` and `labels`, (texts, length)."""
    tokenizer = AutoProcessor.from_pretrained(SHIPPED_MODELS["mac-tiny"]).tokenizer
    ends = [text + tokenizer.eos_token for text in texts]
    batch = tokenizer(
        ends, padding=True, padding_side="right", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return {"input_ids": batch["input_ids"], "labels": labels}


@torch.no_grad()
def mean_loss(model: MacForConditionalGeneration, batch: dict[str, torch.Tensor]) -> float:
    """Mean loss of a token, in nats; a token at a time on a cache, for so are words decoded."""
    losses = []
    for ids, labels in zip(batch["input_ids"].split(1), batch["labels"].split(1), strict=True):
        cache = None
        for token, label in zip(ids[0, :-1], labels[0, 1:], strict=True):
            if label == -100:
                break
            outputs = model(input_ids=token.view(1, 1), cache=cache, use_cache=True)
            cache = outputs.cache
            losses.append(torch.nn.functional.cross_entropy(outputs.logits[0, -1].float(), label).item())
    return sum(losses) / len(losses)


@torch.no_grad()
def mean_loss_at_once(model: MacForConditionalGeneration, batch: dict[str, torch.Tensor], captions: int) -> float:
    """The same where all tokens of so many captions are read at once, as a prompt is: by other products."""
    total = words = 0.0
    for ids, labels in zip(batch["input_ids"].split(captions), batch["labels"].split(captions), strict=True):
        logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1).float()
        total += torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum").item()
        words += (labels[:, 1:] != -100).sum().item()
    return total / words


def train(model: MacForConditionalGeneration, texts: list[str], options: argparse.Namespace) -> None:
    """Train the language model on captions, in bf16 autocast where that is fast."""
    model.model.audio_tower.requires_grad_(False)
    model.train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], options.rate, weight_decay=0.1)
    for step in range(options.steps):
        start = step * options.batch_size % max(1, len(texts) - options.batch_size)
        for group in optimiser.param_groups:  # warm up over a tenth, then fall to zero
            group["lr"] = options.rate * min(10 * (step + 1) / options.steps, 1 - step / options.steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=FAST_BF16):
            loss = model(**as_batch(texts[start : start + options.batch_size])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 20 == 0:
            print(f"step {step} of {options.steps}: loss {loss.item():.2f}", file=sys.stderr, flush=True)


def compare_losses(options: argparse.Namespace) -> dict[str, float]:
    """Train, and measure the loss of what was held out in each way."""
    texts = read_captions(options.captions)
    texts = [texts[place] for place in torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))]
    held, learnt = as_batch(texts[::HELD_OUT][: options.held]), [t for i, t in enumerate(texts) if i % HELD_OUT]
    model = build(options.size, "ours", "cpu", torch.float32)
    train(model, learnt, options)
    model.eval()
    losses = {"float32": mean_loss(model, held)}
    for name, other in {"int8": quantised(model), "bf16": cast(model, torch.bfloat16)}.items():
        losses |= {name: mean_loss(other, held)}
        losses |= {f"{name}, {n} read at once": mean_loss_at_once(other, held, n) for n in AT_ONCE}
    changes = {f"{name} over float32": loss / losses["float32"] - 1 for name, loss in losses.items()}
    about = {"size": options.size, "steps": options.steps, "held out": len(held["labels"])}
    return about | losses | {name: change for name, change in changes.items() if change}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    ways = parser.add_subparsers(required=True)
    captions = ways.add_parser("captions")
    captions.add_argument("--esc50", type=Path, required=True, help="folder with manifest.csv and recordings")
    captions.add_argument("--fold", type=int, default=5)
    captions.add_argument("--model", default=SHIPPED_MODELS["mac-tiny"])
    captions.add_argument("--batch-size", type=int, default=8)
    captions.set_defaults(compare=compare_captions)
    loss = ways.add_parser("loss")
    loss.add_argument("--captions", type=Path, required=True, help="CSV")
    loss.add_argument("--size", choices=SHAPES, default="130m")
    loss.add_argument("--steps", type=int, default=300)
    loss.add_argument("--batch-size", type=int, default=16)
    loss.add_argument("--rate", type=float, default=6e-4, help="highest learning rate")
    loss.add_argument("--held", type=int, default=100, help="captions to measure at most")
    loss.set_defaults(compare=compare_losses)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(json.dumps(options.compare(options), indent=1))


if __name__ == "__main__":
    main()

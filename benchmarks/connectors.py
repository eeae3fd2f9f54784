"""
Connectors beside `concat`: what they cost, and what they learn at an equal number of parameters.

    python benchmarks/connectors.py cost                                    # EAT-base in front of a Mamba-2 of 130m
    python benchmarks/connectors.py learn --esc50 FOLDER --seeds 0 1 2      # on the frozen encoder of mac-tiny

`learn` puts a new connector between the frozen encoder and the frozen language model of mac-tiny, trains it on the
recordings of folds 1 to 3 that `FOLDER/manifest.csv` lists, and measures the loss of captions of fold 5. Seeds take
turns with the kinds, and a seed gives all kinds the same batches. Each result is a line of JSON.
"""

import argparse
import csv
import json
import statistics
import time
from pathlib import Path

import torch
import yaml
from transformers import Mamba2Config

from modeling_mac import EatConfig, EatModel, MacConfig, MacForConditionalGeneration
from modeling_mac.connector_mac import CONNECTORS
from processing_mac import MacProcessor
from processing_mac.audio_mac import load_waveform
from training_mac.examples.collating import CaptionCollator


ROOT = Path(__file__).parents[1]
MODEL = ROOT / "model_cards" / "mac-tiny"
# Cells of both tables: a kind with its fields.
KINDS = {
    "concat": {"connector_type": "concat"},
    "gated_cnn": {"connector_type": "gated_cnn"},
    "scan": {"connector_type": "scan"},
    "scan, cross": {"connector_type": "scan", "connector_scan": "cross"},
}


def parameters(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def cost(repeats: int) -> None:
    """Print the median time of each connector on one window, as a share of EAT-base's; all take turns in one run."""
    text = Mamba2Config(hidden_size=768, num_heads=24, head_dim=64, state_size=128, n_groups=1, num_hidden_layers=1)
    models, inputs = {"EAT-base": EatModel(EatConfig()).eval()}, {"EAT-base": torch.randn(1, 1024, 128)}
    for name, fields in KINDS.items():
        config = MacConfig(text_config=text, audio_token_id=1, **fields)
        models[name], inputs[name] = CONNECTORS[config.connector_type](config).eval(), torch.randn(1, 512, 768)
    times: dict[str, list[float]] = {name: [] for name in models}
    shares: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for name, model in models.items():
                start = time.perf_counter()
                model(inputs[name])
                if turn:  # after a warm-up
                    times[name].append(time.perf_counter() - start)
                    shares[name].append(times[name][-1] / times["EAT-base"][-1])
    for name, model in models.items():
        row = {
            "name": name,
            "parameters": parameters(model),
            "milliseconds": round(1000 * statistics.median(times[name]), 1),
            "share of EAT-base": round(statistics.median(shares[name]), 4),
        }
        print(json.dumps(row), flush=True)


def read_clips(folder: Path, per_category: dict[int, int]) -> list[dict]:
    """List the recordings of some folds, `per_category` says how many of each, with the captions of their category."""
    wording = yaml.safe_load((ROOT / "recipes" / "esc50_captions.yaml").read_text(encoding="utf-8"))["sources"]
    taken: dict[tuple[int, str], int] = {}
    clips = []
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = int(row["fold"]), row["category"]
            if key[0] in per_category and taken.get(key, 0) < per_category[key[0]]:
                taken[key] = taken.get(key, 0) + 1
                part = "hq" if row["hq"] == "1" else "uniform"
                captions = [one["clause"] for one in wording[row["category"]]]
                clips.append({"file": folder / part / row["file"], "fold": key[0], "captions": captions})
    return clips


@torch.inference_mode()
def encode(clips: list[dict], model: MacForConditionalGeneration, processor: MacProcessor, cache: Path) -> None:
    """Give each clip its `encoder_hidden_states`, (1, 513, dim), once for all cells."""
    if cache.exists():
        states = torch.load(cache, weights_only=True)
    else:
        windows = [
            processor.feature_extractor(load_waveform(clip["file"]), sampling_rate=16_000, return_tensors="pt")
            for clip in clips
        ]
        features = torch.cat([window["input_features"][:1] for window in windows])
        states = torch.cat([model.model.audio_tower(part).last_hidden_state for part in features.split(16)])
        torch.save(states, cache)
    for clip, state in zip(clips, states, strict=True):
        clip["encoder_hidden_states"] = state.clone().unsqueeze(0)


def equal_connector(config: MacConfig, fields: dict, width: int, target: int) -> torch.nn.Module:
    """Make a connector of about `target` parameters: the inner width of its MLP takes what its blocks leave."""
    inner = []
    for size in (1, 2):
        inner.append(make_connector(config, fields, width, size)[1])
    size = 1 + (target - parameters(inner[0])) // (parameters(inner[1]) - parameters(inner[0]))
    new, connector = make_connector(config, fields, width, size)
    model = MacForConditionalGeneration.__new__(MacForConditionalGeneration)
    torch.nn.Module.__init__(model)
    model.config = new
    connector.apply(model._init_weights)
    return connector


def make_connector(config: MacConfig, fields: dict, width: int, inner: int) -> tuple[MacConfig, torch.nn.Module]:
    """Make a connector with an MLP of that inner width."""
    shared = {"audio_config": config.audio_config, "text_config": config.text_config, "audio_token_id": 2}
    new = MacConfig(**shared, connector_width=width, connector_hidden_size=inner, **fields)
    return new, CONNECTORS[new.connector_type](new)


def batches(clips: list[dict], size: int, steps: int, seed: int) -> list[list[dict]]:
    """Draw batches of examples; a seed gives the same ones to every kind."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    while len(found) < steps:
        for rows in torch.randperm(len(clips), generator=draw).split(size):
            chosen = torch.randint(5, (len(rows),), generator=draw)
            found.append(
                [
                    clips[row] | {"caption": clips[row]["captions"][number % len(clips[row]["captions"])]}
                    for row, number in zip(rows.tolist(), chosen.tolist(), strict=True)
                ]
            )
    return found[:steps]


@torch.inference_mode()
def held_out_loss(model: MacForConditionalGeneration, clips: list[dict], collate: CaptionCollator) -> float:
    """Mean loss, in nats a token, of each held-out clip's first caption."""
    total = count = 0.0
    for start in range(0, len(clips), 16):
        batch = collate([clip | {"caption": clip["captions"][0]} for clip in clips[start : start + 16]])
        labels = int((batch["labels"][:, 1:] != -100).sum())
        total, count = total + float(model(**batch).loss) * labels, count + labels
    return total / count


def learn(args: argparse.Namespace) -> None:
    """Print one line for each seed and kind."""
    processor = MacProcessor.from_pretrained(MODEL)
    model = MacForConditionalGeneration.from_pretrained(MODEL).eval().requires_grad_(False)
    clips = read_clips(args.esc50, {1: args.clips, 2: args.clips, 3: args.clips, 5: args.held_out})
    encode(clips, model, processor, args.cache)
    training, held_out = ([clip for clip in clips if (clip["fold"] == 5) == last] for last in (False, True))
    collate = CaptionCollator(processor)
    print(json.dumps({"name": "as shipped", "loss": held_out_loss(model, held_out, collate)}), flush=True)
    for seed in args.seeds:
        for name in args.kinds:
            torch.manual_seed(seed)
            fields = KINDS[name] | {"connector_layers": args.layers}
            connector = equal_connector(model.config, fields, args.width, args.parameters)
            model.model.connector = connector
            optimizer = torch.optim.AdamW(connector.parameters(), 2e-3, weight_decay=0.0)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, args.steps, pct_start=0.1)
            start = time.perf_counter()
            for batch in batches(training, args.batch, args.steps, seed):
                model(**collate(batch)).loss.backward()
                torch.nn.utils.clip_grad_norm_(connector.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            row = {"name": name, "seed": seed, "parameters": parameters(connector), "steps": args.steps}
            row |= {"loss": held_out_loss(model, held_out, collate), "seconds": time.perf_counter() - start}
            row |= {"clips": len(training), "held_out": len(held_out)}
            print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "learn"))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--esc50", type=Path, help="folder of the recordings and their manifest.csv")
    parser.add_argument("--cache", type=Path, default=Path("encoded.pt"), help="file that keeps the encodings")
    parser.add_argument("--clips", type=int, default=4, help="recordings of a category and fold to learn from")
    parser.add_argument("--held-out", type=int, default=4, help="recordings of a category of fold 5")
    parser.add_argument("--width", type=int, default=64, help="width at which the new connectors mix")
    parser.add_argument("--parameters", type=int, default=200_000, help="size of every connector")
    parser.add_argument("--layers", type=int, default=1, help="blocks of the connectors that mix")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "cost":
        cost(args.repeats)
    elif args.esc50 is None:
        parser.error("`learn` needs --esc50")
    else:
        learn(args)


if __name__ == "__main__":
    main()

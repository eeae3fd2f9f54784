"""
What a batch, beams and bf16 weights cost: each against one greedy clip, or against float32, in turn in one process.

    python benchmarks/ratios.py --size 130m --threads 2

Writes `benchmarks/results/ratios-DEVICE.json`.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from speed import RESULTS, median_seconds, provenance, write
from speed_columns import NEW, WINDOW, decode, generate, prefill
from speed_models import SHAPES, build

from modeling_mac import MacForConditionalGeneration


Runs = dict[str, Callable[[], object]]


def batches(model: MacForConditionalGeneration) -> Runs:
    """`NEW` tokens after 96; the first is what the others are compared with."""
    return {"greedy": generate(model, 1), "batch of 8": generate(model, 8), "4 beams": generate(model, 1, num_beams=4)}


def precisions(models: dict[torch.dtype, MacForConditionalGeneration]) -> dict[str, Runs]:
    """float32, then bf16: a token, 96 tokens, a window through the encoder."""
    named = {str(dtype).removeprefix("torch."): model for dtype, model in models.items()}
    window = torch.randn(1, *WINDOW)
    features = {
        name: partial(model.get_audio_features, window.to(model.device, model.dtype)) for name, model in named.items()
    }
    return {
        "decode": {name: decode({"ours": model})["ours"] for name, model in named.items()},
        "prefill 96": {name: prefill({"ours": model}, 96)["ours"] for name, model in named.items()},
        "eat": features,
    }


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="130m", help="language model")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    models = {dtype: build(options.size, "ours", options.device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    groups = {f"{NEW} tokens": batches(models[torch.float32]), **precisions(models)}
    seconds = {group: median_seconds(runs, options.repeats, options.device) for group, runs in groups.items()}
    record = {"size": options.size, "seconds": seconds, "repeats": options.repeats, **provenance(options.device)}
    options.results.mkdir(parents=True, exist_ok=True)
    write(options.results / f"ratios-{options.device}.json", json.dumps(record, indent=1) + "\n")
    for group, values in seconds.items():
        (first, base), *others = values.items()
        print(f"{group}, {first}: {1000 * base:.1f} ms")
        for name, value in others:
            print(f"{group}, {name}: {1000 * value:.1f} ms, {value / base:.2f} times")


if __name__ == "__main__":
    main()

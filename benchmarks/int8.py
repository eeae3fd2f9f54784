"""
What weights of 8 bits (`to_int8`) gain: decoding, a batch, beams, prefill, the encoder and a whole caption, beside
float32, bf16, a GPT-NeoX of equal size with and without 8 bits, torchao's 8 bits, and the float32 products alone.

    python benchmarks/int8.py --threads 2                                  # all columns, minutes
    python benchmarks/int8.py --columns decode --variants ours int8 floor
    python benchmarks/int8.py --threads 1 --cpu-time                       # on a machine that others use, too

Variants run in turn in one process, after a warm-up each; medians. A run replaces the columns that it measured in
`benchmarks/results/int8-cpu.json`. Only the variant torchao needs torchao. `int8_quality.py` says what the rounding
changes.
"""

import argparse
import copy
import importlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from speed import RESULTS, installed, median_seconds, provenance, write
from speed_columns import COLUMNS
from speed_models import SHAPES, build

from modeling_mac import MacForConditionalGeneration, compile_decoding


MEASURED = ("decode", "greedy x 1", "greedy x 8", "4 beams", "prefill 96", "eat", "captions x 1")
VARIANTS = ("ours", "int8", "int8 compiled", "bf16", "gpt_neox", "gpt_neox int8", "torchao", "floor")
DEFAULT = ("ours", "int8", "bf16", "gpt_neox", "gpt_neox int8", "floor")  # the others compile or need a package


def quantised(model: MacForConditionalGeneration) -> MacForConditionalGeneration:
    """A copy with weights of 8 bits."""
    return copy.deepcopy(model).to_int8()


def by_torchao(model: MacForConditionalGeneration) -> MacForConditionalGeneration:
    """A copy with the weights of its linear layers in torchao's 8 bits, a scale a row, as ours."""
    model, ao = copy.deepcopy(model), importlib.import_module("torchao.quantization")
    ao.quantize_(model, ao.Int8WeightOnlyConfig())
    return model


def make(variant: str, ours: MacForConditionalGeneration, size: str) -> MacForConditionalGeneration:
    """The model of a variant; `floor` has none of its own."""
    if variant.startswith("gpt_neox"):
        neox = build(size, "gpt_neox", "cpu", torch.float32)
        return neox.to_int8() if variant.endswith("int8") else neox
    if variant == "bf16":
        return build(size, "ours", "cpu", torch.bfloat16)
    if variant == "torchao":
        return by_torchao(ours)
    model = quantised(ours) if variant.startswith("int8") else ours
    if variant == "int8 compiled":
        compile_decoding(model)
    return model


def eat(models: dict[str, Any]) -> dict[str, Any]:
    """`eat` of the speed table for every model of ours, and the encoder's products alone."""
    mine = {name: model for name, model in models.items() if not name.startswith("gpt_neox")}
    runs = {name: COLUMNS["eat"]({"ours": model})["ours"] for name, model in mine.items()}
    return runs | {"floor": COLUMNS["eat"]({"ours": models["ours"]})["floor"]}


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="130m", help="language model")
    parser.add_argument("--columns", nargs="+", choices=MEASURED, default=list(MEASURED), metavar="COLUMN")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(DEFAULT), metavar="VARIANT")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor, not of the wall")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    ours = build(options.size, "ours", "cpu", torch.float32)
    models = {"ours": ours} | {name: make(name, ours, options.size) for name in options.variants if name != "floor"}
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "int8-cpu.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for column in options.columns:
        runs = eat(models) if column == "eat" else COLUMNS[column](models)
        runs = {name: run for name, run in runs.items() if name in options.variants}
        seconds = median_seconds(
            runs, options.repeats, "cpu", time.process_time if options.cpu_time else time.perf_counter
        )
        about = provenance("cpu")
        about["versions"] |= installed("torchao")
        about |= {"repeats": options.repeats, "cpu time": options.cpu_time}
        results.setdefault(options.size, {})[column] = {"seconds": seconds, **about}
        write(path, json.dumps(results, indent=1) + "\n")
        print(column, *(f"{name}: {1000 * value:.1f} ms" for name, value in seconds.items()), sep="\n    ", flush=True)


if __name__ == "__main__":
    main()

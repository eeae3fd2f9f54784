"""
The linear layers of Mamba-2 130m's blocks alone, on weights of 8 bits: ours and torchao's, with and without torch's
compiler, beside float32.

    pip install torchao
    python benchmarks/int8_layers.py --threads 1

Variants run in turn in one process, after a warm-up each; medians of the time of all 48 layers.
"""

import argparse
import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from speed import RESULTS, installed, median_seconds, provenance, write
from torch import nn

from modeling_mac.int8_mac import Int8Linear


BLOCKS = 24
LAYERS = ((768, 3352), (1536, 768))  # numbers that `in_proj` and `out_proj` of a block take, and make
ROWS = (1, 8)


def float_layers(dtype: torch.dtype) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(*sizes, bias=False, dtype=dtype) for sizes in LAYERS * BLOCKS)


def our_layers() -> nn.ModuleList:
    layers = nn.ModuleList()
    for layer in float_layers(torch.float32):
        layers.append(Int8Linear(layer))
        layers[-1].take(layer.weight)
    return layers


def torchao_layers(dtype: torch.dtype) -> nn.ModuleList:
    """Layers with a scale a row, as ours."""
    layers, torchao = float_layers(dtype), importlib.import_module("torchao.quantization")
    torchao.quantize_(layers, torchao.Int8WeightOnlyConfig())
    return layers


def call(layer: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return layer(rows)


def multiply(
    layers: nn.ModuleList, call: Callable[[nn.Module, torch.Tensor], torch.Tensor], rows: int, dtype: torch.dtype
) -> None:
    """Multiply so many rows by each layer."""
    inputs = [torch.ones(rows, size, dtype=dtype) for size, _ in LAYERS]
    for number, layer in enumerate(layers):
        call(layer, inputs[number % len(inputs)])


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    made = {
        "float32": (float_layers(torch.float32), torch.float32),
        "ours": (our_layers(), torch.float32),
        "torchao": (torchao_layers(torch.float32), torch.float32),
        "torchao on bf16": (torchao_layers(torch.bfloat16), torch.bfloat16),
    }
    compiled = torch.compile(call)
    seconds = {}
    for rows in ROWS:
        runs = {}
        for name, (layers, dtype) in made.items():
            runs[name] = partial(multiply, layers, call, rows, dtype)
            runs[f"{name}, compiled"] = partial(multiply, layers, compiled, rows, dtype)
        seconds[rows] = median_seconds(runs, options.repeats, "cpu")
        told = (f"{name}: {1000 * value:.1f} ms" for name, value in seconds[rows].items())
        print(f"rows: {rows}", *told, sep="\n    ", flush=True)
    about = provenance("cpu")
    about["versions"] |= installed("torchao")
    options.results.mkdir(parents=True, exist_ok=True)
    record = {"seconds": seconds, "repeats": options.repeats, **about}
    write(options.results / "int8-layers-cpu.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

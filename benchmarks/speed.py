"""
The speed table: ours, ours compiled, the same model on transformers' stock mixer, a GPT-NeoX of equal size, and the
matrix products. On CUDA "ours" takes mamba-ssm's kernels, and beside it stand our portable scan, decoding as a CUDA
graph, and the time in which the card moves as many bytes as a token reads weights.

    python benchmarks/speed.py --sizes 130m --threads 2                    # everything; minutes to hours
    python benchmarks/speed.py --columns "prefill 96" decode --variants ours floor
    python benchmarks/speed.py --device cuda --dtype bfloat16 --variants ours portable graph stock gpt_neox floor bytes

Variants run in turn in one process, after a warm-up each; medians. A run replaces what it measured in
`benchmarks/results/speed-DEVICE-DTYPE.json` and draws the plot beside it again; the screen shows the whole table.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import transformers
from speed_columns import COLUMNS
from speed_models import SHAPES, build
from speed_plot import draw


VARIANTS = ("ours", "compiled", "portable", "graph", "stock", "gpt_neox", "floor", "bytes")
DEFAULT = ("ours", "compiled", "stock", "gpt_neox", "floor")
BUILT = (
    "ours",
    "compiled",
    "portable",
    "graph",
    "stock",
    "gpt_neox",
)  # models of their own; the others run on that of "ours"
RATIOS = (("ours", "floor"), ("compiled", "floor"), ("ours", "stock"), ("ours", "gpt_neox"), ("graph", "gpt_neox"))
RESULTS = Path(__file__).parent / "results"


def machine(device: str) -> str:
    """The processor's name."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor()])[0]}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit of the code, "+" if files differ from it."""
    here = Path(__file__).parent
    run = lambda *words: subprocess.run(["git", "-C", here, *words], capture_output=True, text=True).stdout  # noqa: E731
    changed = run("status", "--porcelain", "--untracked-files=no", "--", "..", ":!results").strip()
    return run("rev-parse", "--short", "HEAD").strip() + ("+" if changed else "")


def provenance(device: str) -> dict[str, Any]:
    """Where and with what a number was measured."""
    return {
        "threads": torch.get_num_threads(),
        "machine": machine(device),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        } | installed("triton", "mamba-ssm", "causal-conv1d"),
    }  # fmt: skip


def installed(*packages: str) -> dict[str, str]:
    """Version of each of these packages that is there."""
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def median_seconds(
    runs: dict[str, Callable[[], object]], repeats: int, device: str, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Each variant once for warm-up, then all in turn; on a busy machine by the `clock` `time.process_time`."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """The most memory that tensors made while it runs hold at one time."""
    run()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def cache_bytes(outputs: Any) -> int:
    """Size of the tensors in the cache that a forward returned."""
    layers = outputs.cache.layers
    values = [value for layer in layers for value in vars(layer).values()]
    tensors = [item for value in values for item in (value.values() if isinstance(value, dict) else [value])]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))


def measure(column: str, models: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One column of the table: medians in seconds and what else belongs to it."""
    torch.compiler.reset()  # graphs of this column's shapes only: past a number of shapes `compiled` would not be so
    runs = {name: run for name, run in COLUMNS[column](models).items() if name in options.variants}
    record: dict[str, Any] = {"seconds": median_seconds(runs, options.repeats, options.device)}
    if column.startswith("training"):
        record["peak_bytes"] = {name: peak_bytes(run, options.device) for name, run in runs.items()}
    if column.startswith("first token"):
        record["cache_bytes"] = {name: cache_bytes(run()) for name, run in runs.items() if name != "floor"}
    return record | {"repeats": options.repeats, **provenance(options.device)}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a line a column, milliseconds and ratios."""
    titles = ["", "", *VARIANTS, *(f"{first} over {second}" for first, second in RATIOS)]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for size, columns in results.items():
        for column, record in columns.items():
            seconds = record["seconds"]
            cells = [f"{1000 * seconds[name]:.1f}" if name in seconds else "" for name in VARIANTS]
            ratios = [
                f"{seconds[first] / seconds[second]:.2f}" if first in seconds and second in seconds else ""
                for first, second in RATIOS
            ]
            lines.append(f"| {' | '.join([size, column, *cells, *ratios])} |")
            for kind in ("peak_bytes", "cache_bytes"):
                if kind in record:
                    cells = [f"{record[kind][name] / 1e6:.1f}" if name in record[kind] else "" for name in VARIANTS]
                    cells += [""] * len(RATIOS)
                    lines.append(f"| {size} | {column}, {kind.removesuffix('_bytes')}, MB | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.rename(path)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["130m"], help="language models")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS), metavar="COLUMN")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(DEFAULT))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the weights")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each variant, at least 5 for a table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args(arguments)
    if "graph" in options.variants and options.device != "cuda":
        parser.error("--variants graph needs --device cuda")
    return options


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"speed-{options.device}-{options.dtype}.json"
    results: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    for size in options.sizes:
        dtype = getattr(torch, options.dtype)
        models = {
            name: build(size, name, options.device, dtype) for name in BUILT if name in {"ours", *options.variants}
        }
        for column in options.columns:
            print(f"{size}: {column}", file=sys.stderr, flush=True)
            record = measure(column, models, options)
            measured = results.setdefault(size, {}) | {column: record}
            results[size] = {name: measured[name] for name in COLUMNS if name in measured}
            write(path, json.dumps(results, indent=1) + "\n")
    draw(results, path.with_suffix(".png"))
    print(table(results))


if __name__ == "__main__":
    main()

"""
What a recording costs against its length: processor time a second of audio, and resident memory.

    python benchmarks/length.py --threads 1                                   # 10 s to 8 hours; hours
    python benchmarks/length.py --windows 1 4 12 59 --stop-after 300          # up to 10 minutes
    python benchmarks/length.py --add --variants ours --windows 2813          # one more point of one curve

Of the 130m shape (random weights) the language model reads a recording whole, 64 tokens a window of 10.24 s, and
writes 5 tokens; the encoder, which costs the same a window at every length, is left out. Beside it stand the same
model on transformers' own mixer, a GPT-NeoX of equal size, and mac-tiny, which hears noise as `mac-caption --stream`
does, from samples to captions. Each runs in a process of its own, which is ended when it needs more time of the
processor or more memory than it may have: its curve then stops, and the plot says why. Writes
`benchmarks/results/length-cpu.json` and `.png`, anew or, with `--add`, beside the points that are there from the same
machine.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import psutil
import torch
from speed import RESULTS, commit, provenance, write
from speed_columns import AUDIO, PROMPT, ids_of
from speed_models import build

from processing_mac import SHIPPED_MODELS, load_captioner


matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import LogLocator


VARIANTS = {"ours": "#1b7837", "stock": "#b2182b", "gpt_neox": "#2166ac", "mac-tiny": "#7fbf7b"}  # with their colours
LABELS = {"ours": "ours, 130m", "stock": "transformers' Mamba-2, 130m", "gpt_neox": "GPT-NeoX, 130m",
          "mac-tiny": "mac-tiny, from samples to captions"}  # fmt: skip
WINDOW, RATE = 10.24, 16_000  # seconds; samples in a second
WINDOWS = (1, 4, 12, 59, 176, 352, 1055, 2813)  # 10 s, 40 s, 2 and 10 minutes, half an hour, 1, 3 and 8 hours
WRITTEN = 5  # tokens after a recording was read
MARKS = {10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 10800: "3 h", 28800: "8 h"}


def reader(variant: str, size: str) -> Callable[[int], None]:
    """A function that takes so many windows through a model."""
    if variant == "mac-tiny":
        captioner = load_captioner(SHIPPED_MODELS["mac-tiny"], device="cpu")
        generator = np.random.default_rng(0)

        def hear(windows: int) -> None:
            stream = captioner.stream()
            for _ in range(windows):
                stream.push((generator.standard_normal(round(WINDOW * RATE)) / 10).astype(np.float32))
            stream.close()

        return hear
    model = build(size, variant, "cpu", torch.float32)
    length = {"min_new_tokens": WRITTEN, "max_new_tokens": WRITTEN, "do_sample": False}

    def read(windows: int) -> None:
        ids = ids_of(model, 1, AUDIO * windows + PROMPT)
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **length)

    return read


@torch.no_grad()
def work(pipe: Connection, variant: str, size: str, threads: int) -> None:
    """In a process of its own: take every number of windows that comes, and answer with the processor's seconds."""
    torch.set_num_threads(threads)
    run = reader(variant, size)
    run(1)
    pipe.send(0.0)
    while True:
        windows = pipe.recv()
        start = time.process_time()
        run(windows)
        pipe.send(time.process_time() - start)


def seconds_of(process: psutil.Process) -> float:
    """What a process has used of the processor."""
    times = process.cpu_times()
    return times.user + times.system


def measure(variant: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Lengthen the recording until the last length, or until memory or time are used up, which the last entry says."""
    context, points = multiprocessing.get_context("spawn"), []
    pipe, end = context.Pipe()
    child = context.Process(target=work, args=(end, variant, options.size, options.threads), daemon=True)
    child.start()
    end.close()  # so that the other end is told when the process is gone
    process = psutil.Process(child.pid)
    pipe.recv()
    for windows in options.windows:
        pipe.send(windows)
        before, most, stopped = seconds_of(process), process.memory_info().rss, None
        while not stopped and not pipe.poll(0.02):
            most = max(most, process.memory_info().rss)
            if most > 1e9 * options.gigabytes:  # before the machine has none left
                break
            if seconds_of(process) - before > options.stop_after:
                stopped = f"{options.stop_after / 60:g} minutes"
        if most > 1e9 * options.gigabytes:
            stopped = f"{options.gigabytes:g} GB"
        point: dict[str, Any] = {"seconds of audio": windows * WINDOW, "resident": most, "commit": commit()}
        try:
            point |= {"stopped by": stopped} if stopped else {"processor seconds": pipe.recv()}
        except EOFError:
            stopped = point["stopped by"] = "the system"
        points.append(point)
        print(variant, points[-1], flush=True)
        if stopped:
            break
    child.kill()
    child.join()
    return points


def joined(known: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One curve of the points that are known and those that are new, which replace others of their length."""
    points = {point["seconds of audio"]: point for point in [*known, *new]}
    curve = [points[length] for length in sorted(points)]
    stop = next((place for place, point in enumerate(curve) if "stopped by" in point), len(curve))
    return curve[: stop + 1]


def known_record(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What `path` holds already, which must come from the same machine, versions, shape and threads as `record`."""
    known = json.loads(path.read_text(encoding="utf-8"))
    if other := [name for name in record if name != "curves" and known[name] != record[name]]:
        raise SystemExit(f"--add: {path} was made with another {', '.join(other)}; leave --add out to begin anew")
    return known


def draw(record: dict[str, Any], path: Path) -> None:
    """Both costs against the length, and a cross where a curve stops."""
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.4))
    for variant, points in record["curves"].items():
        whole = [point for point in points if "processor seconds" in point]
        length = [point["seconds of audio"] for point in whole]
        values = (
            [1000 * point["processor seconds"] / point["seconds of audio"] for point in whole],
            [point["resident"] / 1e9 for point in whole],
        )
        for axis, value in zip(axes, values, strict=True):
            axis.plot(length, value, marker="o", color=VARIANTS[variant], label=LABELS[variant])
            if len(whole) < len(points) and whole:
                axis.plot(length[-1], value[-1], marker="x", markersize=12, color=VARIANTS[variant])
                axis.annotate(
                    f"stopped by {points[-1]['stopped by']}\nat {points[-1]['seconds of audio'] / 60:.0f} min",
                    (length[-1], value[-1]), xytext=(6, 6), textcoords="offset points", fontsize=7,
                )  # fmt: skip
    measured = any("processor seconds" in point for points in record["curves"].values() for point in points)
    scale = "log" if measured else "linear"  # nothing has no logarithm
    for axis, label in zip(axes, ("processor ms a second of audio", "resident memory, GB"), strict=True):
        axis.set(xscale=scale, yscale=scale, xlabel="length of the recording", ylabel=label)
        shown = {second: text for second, text in MARKS.items() if second <= 1.1 * axis.get_xlim()[1]}
        axis.set_xticks(list(shown), list(shown.values()))
        if measured:
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[1].legend(frameon=False, fontsize=8, loc="upper left")  # where no curve is
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    commits = sorted({point["commit"] for points in record["curves"].values() for point in points})
    note = f"{record['machine']}, {record['threads']} threads; {versions}; commit {', '.join(commits)}"
    figure.text(0.01, 0.005, note, fontsize=7)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.rename(path)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="130m", help="language model of all but mac-tiny")
    parser.add_argument("--windows", type=int, nargs="+", default=list(WINDOWS), help="lengths, in windows of 10.24 s")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument(
        "--stop-after", type=float, default=3600, metavar="SECONDS", help="of the processor, for one length"
    )
    free = round(0.8 * psutil.virtual_memory().available / 1e9, 1)
    parser.add_argument("--gigabytes", type=float, default=free, help=f"of memory for one process (now: {free})")
    parser.add_argument("--add", action="store_true", help="keep the points that the results hold already")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "length-cpu.json"
    record = {"size": options.size, "curves": {}, **provenance("cpu"), "threads": options.threads}
    del record["commit"]  # each point has its own
    if options.add and path.exists():
        record = known_record(path, record)
    for variant in options.variants:
        record["curves"][variant] = joined(record["curves"].get(variant, []), measure(variant, options))
        write(path, json.dumps(record, indent=1) + "\n")
        draw(record, path.with_suffix(".png"))


if __name__ == "__main__":
    main()

"""
Recordings a second of `mac-caption`'s way through many files: one after the other, decoded ahead, and with Ray.

    python benchmarks/many_files.py path/to/folder-of-sounds --files 1000
    python benchmarks/many_files.py path/to/folder-of-sounds --files 200 --copies 50 --only ahead    # memory
    python benchmarks/many_files.py path/to/folder-of-sounds --files 1000 --parts 3 --ray 2          # actors

With `--ray N` each turn goes through one process, one actor of Ray and N. The start of the actors is counted, so that
turns should be long. The ways take turns, a part of the files each, so that all meet the same machine; torch has one
thread a process. CPU time is that of this process and of all that it started, which says more than the clock where
others work on the machine.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import torch

import modeling_mac  # noqa: F401 (registers the checkpoint's classes)
from processing_mac import DEFAULT_MODEL, load_captioner
from processing_mac.captioning_mac import caption_files
from processing_mac.finding_audio_mac import find_audio
from serving_mac.bulk_ray import BulkOptions, caption_on_ray, start_ray


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of sounds")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--copies", type=int, default=1, help="how often each file is captioned")
    parser.add_argument("--parts", type=int, default=5, help="turns of every way")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--ray", type=int, metavar="ACTORS", help="compare so many actors of Ray with one")
    parser.add_argument("--only", choices=("one by one", "ahead"), help="one way instead of all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = find_audio([options.folder])
    files = (files * (options.files // len(files) + 1))[: options.files] * options.copies
    captioner = load_captioner(options.model, device="cpu")
    ways: dict[str, Callable[[list[str]], Iterator[tuple[str, Any]]]] = {
        "one by one": lambda part: one_by_one(captioner, part, options.batch_size),
        "ahead": lambda part: caption_files(captioner, part, options.batch_size),
    }
    if options.ray:
        start_ray(None, options.ray)
        ways = {"ahead": ways["ahead"]} | {
            f"{count} on Ray": lambda part, count=count: on_ray(part, options, count) for count in (1, options.ray)
        }
    if options.only:
        ways = {options.only: ways[options.only]}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    captions: dict[str, list[Any]] = {name: [] for name in ways}
    memory = []
    for part in (files[turn :: options.parts] for turn in range(options.parts)):
        for name, way in ways.items():
            start, before, results = time.perf_counter(), cpu_seconds(), iter(way(part))
            found = [next(results) for _ in part]
            rates[name].append(len(found) / (time.perf_counter() - start))
            spent = cpu_seconds()  # while the actors still are there
            costs[name].append(sum(now - before.get(process, 0) for process, now in spent.items()) / len(found))
            captions[name] += [*found, *results]
        memory.append(psutil.Process().memory_info().rss / 1e6)
    for name, found in rates.items():
        ratio = statistics.median(now / first for now, first in zip(found, next(iter(rates.values())), strict=True))
        cost = 1000 * statistics.median(costs[name])
        rate = statistics.median(found)
        print(f"{name:12} {rate:6.1f} recordings/s, {ratio:.2f} times the first way, {cost:.0f} ms of CPU time each")
    first = next(iter(captions.values()))
    pairs = [pair for way in captions.values() for pair in zip(first, way, strict=True)]
    print(f"captions that differ: {sum(one != other for one, other in pairs)}")
    print("resident after each turn:", *(f"{megabytes:.0f}" for megabytes in memory), "MB")
    return 0


def cpu_seconds() -> dict[tuple[int, float], float]:
    """Read the CPU time that this process and each that it started took so far, by number and start."""
    spent = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess), process.oneshot():
            times = process.cpu_times()
            spent[process.pid, process.create_time()] = times.user + times.system
    return spent


def one_by_one(captioner: Any, files: list[str], batch_size: int) -> Iterator[tuple[str, Any]]:
    """Decode a batch, caption it, decode the next."""
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        clips = [{"array": captioner.feature_extractor.load(file)[0], "sampling_rate": 16_000} for file in batch]
        for file, [result] in zip(batch, captioner(clips, batch_size=len(clips)), strict=True):
            yield file, result


def on_ray(files: list[str], options: argparse.Namespace, actors: int) -> Iterator[tuple[str, Any]]:
    """Caption with so many actors."""
    worker = BulkOptions(options.model, options.batch_size, {"device": "cpu"})
    return caption_on_ray(importlib.import_module("ray"), files, worker, actors)


if __name__ == "__main__":
    sys.exit(main())

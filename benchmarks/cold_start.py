"""
What a person who types `mac-caption` waits for: the start to the first caption, and clips a second.

    python benchmarks/cold_start.py start examples/clock_tick.wav                   # and what of it torch takes
    python benchmarks/cold_start.py start examples/clock_tick.wav --against OTHER   # beside another checkout
    python benchmarks/cold_start.py clips FOLDER --batch-sizes 1 8 32 --threads 1 2
    python benchmarks/cold_start.py clips FOLDER --busy 1                           # beside a program on one core
    python benchmarks/cold_start.py clips FOLDER --against OTHER                    # beside another checkout
    python benchmarks/cold_start.py parts FOLDER --threads 1                        # where the time of clips goes

All ways take turns; medians, of the wall and of the processor. `chosen` is what `mac-caption` does without
`--threads`. Beside another checkout all is captioned by `mac-caption` in a process that has imported what it needs;
the model is loaded anew each time, in a quarter of a second.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from processing_mac import DEFAULT_MODEL, load_captioner
from processing_mac.captioning_mac import caption_files
from processing_mac.finding_audio_mac import find_audio
from processing_mac.free_cores_mac import FreeCores


HERE = Path(__file__).parents[1]
CAPTION_EACH_LINE = """
import contextlib, io, sys
from processing_mac.cli_mac import main
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()):
        main(line.split())
    print("done", flush=True)
"""
TORCH, PACKAGES = "import torch", "import processing_mac, modeling_mac"


def start(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Processes that end after the first caption, or after a part of what it needs."""

    def run(checkout: Path, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, *words], check=True, env=environment, stdout=subprocess.DEVNULL)

    def caption(checkout: Path) -> None:
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        module, function = project["scripts"]["mac-caption"].split(":")
        command = f"import sys; from {module} import {function}; sys.exit({function}())"  # as pip writes it
        run(checkout, "-c", command, str(options.file.resolve()))

    ways = {
        TORCH: lambda: run(HERE, "-c", TORCH),
        PACKAGES: lambda: run(HERE, "-c", PACKAGES),
        "mac-caption FILE": lambda: caption(HERE),
    }
    if options.against:
        ways[f"the same of {options.against}"] = lambda: caption(options.against)
    return ways


def caption_by(checkout: Path, words: list[str]) -> Callable[[], None]:
    """`mac-caption` of a checkout with these words, none with a blank, in a process that waits for the next time."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", CAPTION_EACH_LINE],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )

    def run() -> None:
        assert child.stdin is not None and child.stdout is not None
        print(*words, file=child.stdin, flush=True)
        if child.stdout.readline() != "done\n":
            raise SystemExit(f"{checkout}: mac-caption {' '.join(words)} failed")

    return run


def beside_another(options: argparse.Namespace, files: list[str]) -> dict[str, Callable[[], None]]:
    """The files by `mac-caption` of this checkout and of another, which must have the model, too."""
    ways = {}
    for size in options.batch_sizes:
        words = [*files, "--device", "cpu", "--batch-size", str(size), "--model"]
        for name, checkout in (("", HERE), (f" of {options.against}", options.against)):
            model = str(checkout.resolve() / Path(options.model).resolve().relative_to(HERE))
            ways[f"{len(files)} clips, batches of {size}{name}"] = caption_by(checkout, [*words, model])
    return ways


def clips(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """The files of a folder in batches, by so many threads and by as many as `mac-caption` chooses."""
    if options.against:
        return beside_another(options, find_audio([str(Path(options.folder).resolve())])[: options.files])
    files = find_audio([options.folder])[: options.files]
    captioner = load_captioner(options.model, device="cpu", dtype=options.dtype, int8=options.int8)
    most = torch.get_num_threads()

    def run(batch_size: int, threads: int | None) -> None:
        torch.set_num_threads(threads or most)
        free_cores = None if threads else cores
        list(caption_files(captioner, files, batch_size, free_cores=free_cores))

    cores = FreeCores()
    named = {**{f"{number} threads": number for number in options.threads}, "chosen": None}
    return {
        f"{len(files)} clips, batches of {size}, {name}": lambda size=size, threads=threads: run(size, threads)
        for size in options.batch_sizes
        for name, threads in named.items()
    }


def parts(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """The same in batches of 8, and each part of it alone."""
    files = find_audio([options.folder])[: options.files]
    captioner = load_captioner(options.model, device="cpu", dtype=options.dtype, int8=options.int8)
    torch.set_num_threads(options.threads[0])
    load, extractor = captioner.feature_extractor.load, captioner.feature_extractor
    batches = [[load(file)[0] for file in files[start : start + 8]] for start in range(0, len(files), 8)]
    windows = [extractor(batch, sampling_rate=extractor.sampling_rate)["input_features"] for batch in batches]

    def each(run: Callable[[Any], object], inputs: list[Any]) -> Callable[[], None]:
        return lambda: [run(one) for one in inputs] and None

    return {
        "reading the files": each(load, files),
        "log-mel": each(lambda batch: extractor(batch, sampling_rate=extractor.sampling_rate), batches),
        "encoder and connector": each(torch.no_grad()(captioner.model.get_audio_features), windows),
        f"all of {len(files)} clips": lambda: list(caption_files(captioner, files, 8)) and None,
    }


@contextmanager
def busy(number: int) -> Iterator[None]:
    """So many programs beside this one that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def processor_seconds() -> float:
    """What this process and its children have used, those that have ended, too."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    living = [child.cpu_times() for child in psutil.Process().children()]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) + sum(one.user + one.system for one in living)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(required=True)
    task = tasks.add_parser("start")
    task.add_argument("file", type=Path, help="recording")
    task.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of this repository")
    task.set_defaults(make=start, busy=0, warm=1)
    for name, make in (("clips", clips), ("parts", parts)):
        task = tasks.add_parser(name)
        task.add_argument("folder", help="of recordings")
        task.add_argument("--files", type=int, default=64)
        task.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of `parts`, the first")
        task.add_argument("--model", default=DEFAULT_MODEL)
        task.add_argument("--dtype", choices=["float32", "bfloat16"], help="of the weights")
        task.add_argument("--int8", action="store_true")
        task.set_defaults(make=make, warm=1, busy=0)
    tasks.choices["clips"].add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    tasks.choices["clips"].add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    tasks.choices["clips"].add_argument("--busy", type=int, default=0, help="programs beside it that never rest")
    for task in tasks.choices.values():
        task.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    ways = options.make(options)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with busy(options.busy):
        for turn in range(options.warm + options.repeats):
            for name, way in ways.items():
                wall, processor = time.perf_counter(), processor_seconds()
                way()
                if turn >= options.warm:
                    times[name].append((time.perf_counter() - wall, processor_seconds() - processor))
    print("seconds of the wall and of the processor, medians of", options.repeats)
    for name, measured in times.items():
        wall, processor = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:50} {wall:8.2f} {processor:8.2f}")
    if hasattr(os, "getloadavg"):
        print("load:", *(f"{load:.1f}" for load in os.getloadavg()))


if __name__ == "__main__":
    main()

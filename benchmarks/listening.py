"""
What endless listening costs, and how well it finds changes of sound.

    python benchmarks/listening.py memory --hours 8           # resident memory over a stream, as fast as it goes
    python benchmarks/listening.py borders --esc50 ESC50      # joined recordings with known borders
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.csv
import torch

from processing_mac import DEFAULT_MODEL, listening_mac, load_captioner


RATE, BLOCK = 16_000, 16_000  # Hz; samples of a pushed block, one second
TOLERANCE = 1.0  # seconds within which a border counts as found


def memory(options: argparse.Namespace) -> None:
    """Stream swelling noise and print resident memory, in MB, against the hours that were heard."""
    captioner = load_captioner(options.model, device="cpu")
    stream, process = captioner.stream(cut=options.cut, memory=options.memory), psutil.Process()
    generator, first = np.random.default_rng(0), None
    begin, clock = time.process_time(), time.perf_counter()
    print("hours\tMB\tgrowth since the first minute\tseconds of audio a CPU second\tand a second of the clock")
    seconds = round(options.hours * 3600)
    for second in range(1, seconds + 1):
        loudness = 0.1 * (1 + np.sin(second / 7)) ** 2
        stream.push((loudness * generator.standard_normal(BLOCK) / 4).astype(np.float32))
        if second == 60:
            first = process.memory_info().rss / 1e6
        if first and (second % max(seconds // 16, 60) == 0 or second == seconds):
            now = process.memory_info().rss / 1e6
            paces = f"{second / (time.process_time() - begin):.0f}\t{second / (time.perf_counter() - clock):.0f}"
            print(f"{second / 3600:.2f}\t{now:.1f}\t{now - first:+.1f}\t{paces}", flush=True)
    stream.close()


def joined(options: argparse.Namespace) -> Iterator[tuple[np.ndarray, list[float]]]:
    """Join recordings of different kinds, with their silence at the ends cut off, and tell the borders in seconds."""
    table = pyarrow.csv.read_csv(options.esc50 / "manifest.csv").to_pylist()
    rows = [row for row in table if (int(row["fold"]) == 5) == (not options.choose)]
    load = load_captioner(options.model, device="cpu").processor.feature_extractor.load
    generator = random.Random(0)
    for _ in range(options.streams):
        chosen: list[dict] = []
        while len(chosen) < 8:
            row = generator.choice(rows)
            if not chosen or row["category"] != chosen[-1]["category"]:
                chosen.append(row)
        clips = []
        for row in chosen:
            [clip] = load(str(options.esc50 / options.folder / row["file"]))
            loud = np.flatnonzero(np.abs(clip) > 1e-3)
            clips.append(clip[: loud[-1] + 1] if len(loud) else clip)
        yield np.concatenate(clips), np.cumsum([len(clip) / RATE for clip in clips])[:-1].tolist()


@torch.inference_mode()
def borders(options: argparse.Namespace) -> None:
    """Print the share of borders that have a cut within a second, and of cuts that have a border so near."""
    captioner = load_captioner(options.model, device="cpu")
    streams = list(joined(options))
    thresholds = options.thresholds or [listening_mac.CHANGE]
    ways: list[tuple[str, float, dict]] = [(f"every {every:g} s", 0, {"every": every}) for every in options.every]
    ways += [(f"at changes above {value:g}", value, {"cut": "change"}) for value in thresholds]
    for label, threshold, how in ways:
        listening_mac.CHANGE = threshold
        found = wanted = right = cuts = 0
        for waveform, places in streams:
            stream = captioner.stream(merge=False, **how)
            stream.ask = lambda windows: ""  # type: ignore[method-assign]  places alone are counted
            ends = [segment["end"] for segment in stream.over([waveform])][:-1]
            found += sum(any(abs(end - place) <= TOLERANCE for end in ends) for place in places)
            right += sum(any(abs(end - place) <= TOLERANCE for place in places) for end in ends)
            wanted, cuts = wanted + len(places), cuts + len(ends)
        print(
            f"{label}\tfound {found / wanted:.1%} of {wanted}\tright {right / max(cuts, 1):.1%} of {cuts}", flush=True
        )


def main() -> None:
    """Run the measurement that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    tasks = parser.add_subparsers(required=True)
    task = tasks.add_parser("memory")
    task.add_argument("--hours", type=float, default=8.0)
    task.add_argument("--cut", default="every")
    task.add_argument("--memory", default="window")
    task.set_defaults(run=memory)
    task = tasks.add_parser("borders")
    task.add_argument("--esc50", type=Path, required=True)
    task.add_argument("--folder", default="uniform", help="folder of the recordings, below --esc50")
    task.add_argument("--choose", action="store_true", help="all folds but 5, to choose the threshold on")
    task.add_argument("--thresholds", type=float, nargs="+", help="of a change; several to choose among")
    task.add_argument("--every", type=float, nargs="*", default=[10.24, 4.0], help="seconds of blind cuts to compare")
    task.add_argument("--streams", type=int, default=40)
    task.set_defaults(run=borders)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()

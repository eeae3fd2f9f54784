"""
How many clips a second the data loader gives, with features computed from audio and with features from the cache.

    python benchmarks/data_loading.py path/to/folder-of-sounds --workers 2
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

import modeling_mac  # noqa: F401 (registers the checkpoint's classes)
from processing_mac import MacProcessor
from processing_mac.audio_mac import AUDIO_SUFFIXES
from processing_mac.dataset_mac import Clip
from training_mac.examples.collating import CaptionCollator
from training_mac.examples.training_set import TrainingSet
from training_mac.recipe.data_fields import DataRecipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of sounds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--model", default="model_cards/mac-tiny", help="whose processor to use")
    options = parser.parse_args()
    files = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    clips = [Clip(str(path), ("a sound",)) for path in files[: options.clips]]
    processor = MacProcessor.from_pretrained(options.model)
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        settings = {"computed": DataRecipe("", spec_augment=True, gain_db=6.0, time_shift=True)}
        settings["cached"] = DataRecipe("", spec_augment=True, gain_db=6.0, time_shift=True, cache_features=cache)
        sets = {name: TrainingSet([clips], [1.0], data, processor, seed=0) for name, data in settings.items()}
        print(f"the cache was made in {time.perf_counter() - start:.1f} s, {folder_megabytes(cache):.0f} MB")
        loaders = {name: make_loader(training_set, processor, options.workers) for name, training_set in sets.items()}
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for repeat in range(options.repeats + 1):  # in turns, so that both meet the same machine
            for name, loader in loaders.items():
                rate = clips_per_second(loader)
                if repeat:  # the first starts the workers
                    rates[name].append(rate)
    for name, found in rates.items():
        low, high = min(found), max(found)
        print(f"{name:9} {statistics.median(found):7.0f} clips/s (of {len(found)}: {low:.0f} to {high:.0f})")


def make_loader(training_set: TrainingSet, processor: Any, workers: int) -> DataLoader:
    """As training has it, with workers that stay."""
    collate = CaptionCollator(processor)
    return DataLoader(training_set, 16, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0)


def clips_per_second(loader: DataLoader) -> float:
    """Of one epoch."""
    start = time.perf_counter()
    count = sum(len(batch["audio_num_windows"]) for batch in loader)
    return count / (time.perf_counter() - start)


def folder_megabytes(folder: str) -> float:
    """Size of all files below."""
    return sum(os.path.getsize(path) for path in Path(folder).rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()

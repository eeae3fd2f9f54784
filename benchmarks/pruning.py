"""
What TopK pruning saves and what it costs: the encoder's time at several keep rates, in turn in one process, and with a
manifest how many captions name their sound.

    python benchmarks/pruning.py --threads 1                                         # EAT-base's shape, random weights
    python benchmarks/pruning.py --model model_cards/mac-tiny --data validation.csv  # the checkpoint, with accuracy
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

from evaluation_mac.metrics.esc50_naming import NAMING
from modeling_mac import EatConfig, EatModel
from processing_mac import AudioCaptioningPipeline
from processing_mac.captioning_mac import caption_files
from processing_mac.dataset_mac import read_manifest


RATES = (1.0, 0.9, 0.7, 0.5)


@torch.inference_mode()
def encoder_milliseconds(
    tower: EatModel, windows: torch.Tensor, rates: list[float], repeats: int
) -> dict[float, float]:
    """Median time of a batch at each rate; the rates take turns, so that a busy machine slows them alike."""
    times: dict[float, list[float]] = {rate: [] for rate in rates}
    for turn in range(repeats + 1):
        for rate in rates:
            tower.config.keep_rate = rate
            start = time.perf_counter()
            tower(windows)
            if turn:  # after a warm-up
                times[rate].append(time.perf_counter() - start)
    return {rate: 1000 * statistics.median(found) for rate, found in times.items()}


def naming(captioner: AudioCaptioningPipeline, manifest: Path) -> float:
    """Share of a manifest's clips whose caption names their `source`."""
    clips = read_manifest(manifest)
    answers = dict(caption_files(captioner, [clip.audio for clip in clips], 16))
    captions = [answers[clip.audio]["caption"] for clip in clips]
    return NAMING.accuracy(captions, [clip.source for clip in clips])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a MAC model; EAT-base's shape with random weights by default")
    parser.add_argument("--data", type=Path, help="manifest with a `source`, to count named sounds; needs --model")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="keep rates")
    parser.add_argument(
        "--score", choices=("cls", "mean", "intensity", "deviation"), default="cls", help="which patches are kept"
    )
    parser.add_argument("--windows", type=int, default=1, help="windows of 10.24 s at a time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=9, help="runs of each rate")
    options = parser.parse_args()
    if options.data and not options.model:
        parser.error("--data needs --model")
    torch.set_num_threads(options.threads)
    captioner = None
    if options.model:
        model = AutoModelForMultimodalLM.from_pretrained(options.model)
        processor = AutoProcessor.from_pretrained(options.model)
        captioner = AudioCaptioningPipeline(model, processor=processor, task="audio-captioning", device="cpu")
        tower = model.model.audio_tower
    else:
        tower = EatModel(EatConfig()).eval()
    tower.config.pruning_score = options.score
    frames, bins = tower.config.window_frames, tower.config.num_mel_bins
    windows = torch.randn(options.windows, frames, bins, generator=torch.Generator().manual_seed(0))
    times = encoder_milliseconds(tower, windows, options.rates, options.repeats)
    print(
        f"{options.model or 'EAT-base'}, {options.windows} windows, score {options.score}, "
        f"{options.threads} threads, median of {options.repeats}; blocks {tower.config.pruned_layers} prune"
    )
    print("| keep rate | encoder | of unpruned | named |\n|---|---|---|---|")
    for rate in options.rates:
        tower.config.keep_rate = rate
        named = f"{naming(captioner, options.data):.1%}" if options.data and captioner else ""
        print(
            f"| {rate:g} | {times[rate]:.1f} ms | {times[rate] / times[options.rates[0]]:.2f} | {named} |", flush=True
        )


if __name__ == "__main__":
    main()

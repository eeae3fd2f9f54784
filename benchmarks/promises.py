"""
Speeds that the design promises, each held against the machine that it runs on; exits with 1 if one is not kept.

    python benchmarks/promises.py
"""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

import modeling_mac  # noqa: F401, names its classes to transformers
import processing_mac
from evaluation_mac import score_captions
from evaluation_mac.protocols.likelihood import score_by_likelihood
from processing_mac import MacFeatureExtractor


WORDS = ["a", "dog", "barks", "while", "rain", "falls", "on", "the", "roof", "of", "an", "old", "car", "slowly"]


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Processor time of the best run after a warm-up: the machine may be busy."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def noise(length: int) -> np.ndarray:
    """So many seconds of it."""
    return 0.1 * np.random.default_rng(0).standard_normal(length * 16_000).astype(np.float32)


def random_captions(count: int) -> list[str]:
    """Of 8 to 12 words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(8, 13))) for _ in range(count)]


def front_end(repeats: int) -> float:
    """Times real time of the log-mel of a minute."""
    extractor, clip = MacFeatureExtractor(), noise(60)
    return 60 / seconds(lambda: extractor(clip, sampling_rate=16_000), repeats)


def metrics(repeats: int) -> float:
    """How much faster 1,045 captions with five references are scored than Clotho's by the Java programs: 1.2 s."""
    texts = random_captions(6 * 1045)
    candidates, references = texts[:1045], [texts[1045 + 5 * row : 1050 + 5 * row] for row in range(1045)]
    return 1.2 / seconds(lambda: score_captions(candidates, references), repeats)


@torch.inference_mode()
def likelihood(repeats: int) -> float:
    """How much faster 50 captions of a clip are scored than each from scratch."""
    model = AutoModelForMultimodalLM.from_pretrained(processing_mac.DEFAULT_MODEL).eval()
    processor = AutoProcessor.from_pretrained(processing_mac.DEFAULT_MODEL)
    clip, captions = {"array": noise(10), "sampling_rate": 16_000}, random_captions(50)

    def from_scratch() -> None:
        for caption in captions:
            model(**processor(clip, answer=caption))

    together = seconds(lambda: score_by_likelihood(model, processor, clip, captions), repeats)
    return seconds(from_scratch, repeats) / together


PROMISES = {
    "log-mel, times real time": (front_end, 100),
    "metrics, times as fast as the Java programs": (metrics, 2),
    "50 captions of a clip, times as fast as from scratch": (likelihood, 5),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the best counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = True
    for name, (measure, promised) in PROMISES.items():
        found = measure(options.repeats)
        kept &= found >= promised
        print(f"{name}: {found:.1f} (promised: {promised})")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

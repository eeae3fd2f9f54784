"""
Where the time of one caption goes: medians over a 10 s clip, a part a line.

    python benchmarks/latency.py --model model_cards/mac-tiny --threads 2
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

import modeling_mac
import processing_mac


def median_milliseconds(run: Callable[[], object], repeats: int) -> float:
    """After one warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=processing_mac.DEFAULT_MODEL, help="folder or Hub id")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--tokens", type=int, default=20, help="tokens to generate")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each part")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model: modeling_mac.MacForConditionalGeneration = AutoModelForMultimodalLM.from_pretrained(options.model)
    processor = AutoProcessor.from_pretrained(options.model)
    noise = np.random.default_rng(0).standard_normal(160_000).astype(np.float32) * 0.1
    inputs = processor(audio=noise, sampling_rate=16_000)
    length = {"min_new_tokens": options.tokens, "max_new_tokens": options.tokens}
    parts = {
        "log-mel": lambda: processor.feature_extractor(noise, sampling_rate=16_000),
        "encoder and connector": lambda: model.get_audio_features(inputs["input_features"]),
        f"the whole caption, {options.tokens} tokens": lambda: model.generate(
            **processor(audio=noise, sampling_rate=16_000), **length
        ),
    }
    print(f"{options.model}, 10 s of audio, {options.threads} threads, median of {options.repeats}")
    for name, run in parts.items():
        print(f"{name:36s} {median_milliseconds(run, options.repeats):8.1f} ms")


if __name__ == "__main__":
    main()

"""
Does a captioner name what sounds? Every recording of a manifest with a `source` column gets one caption.

    python -m evaluation_mac.naming_protocol --model model_cards/mac-tiny --data runs/esc50/validation.csv

Prints the share of captions that hold a word of their source and of no other (`evaluation_mac.source_naming`), its
95 % bootstrap interval over recordings, and the sources it misses most.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm
from transformers import AutoModelForMultimodalLM, AutoProcessor

import modeling_mac  # noqa: F401  (registers the model with the Auto classes)
from evaluation_mac.source_naming import SOURCE_WORDS, names_source
from processing_mac import AudioCaptioningPipeline
from processing_mac.dataset_mac import Clip, read_manifest


def caption_clips(model_folder: str, clips: Sequence[Clip], batch_size: int = 8) -> list[str]:
    """One caption a clip, with the defaults saved in the model's folder."""
    captioner = AudioCaptioningPipeline(
        AutoModelForMultimodalLM.from_pretrained(model_folder),
        processor=AutoProcessor.from_pretrained(model_folder),
        task="audio-captioning",
    )
    audio = (clip.audio for clip in clips)
    outputs = tqdm(captioner(audio, batch_size=batch_size), total=len(clips), unit="clip")
    return [output[0]["caption"] for output in outputs]


def interval(hits: Sequence[bool], samples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a share."""
    drawn = np.random.default_rng(seed).binomial(len(hits), np.mean(hits), samples) / len(hits)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a MAC model")
    parser.add_argument("--data", type=Path, required=True, help="manifest with a `source` column")
    parser.add_argument("--output", type=Path, help="CSV of every recording with its caption")
    options = parser.parse_args()
    clips = [clip for clip in read_manifest(options.data) if clip.source in SOURCE_WORDS]
    captions = caption_clips(options.model, clips)
    hits = [names_source(caption, str(clip.source)) for clip, caption in zip(clips, captions, strict=True)]
    if options.output:
        with open(options.output, "w", encoding="utf-8", newline="") as file:
            rows = zip((clip.audio for clip in clips), (clip.source for clip in clips), captions, hits, strict=True)
            csv.writer(file).writerows([("audio", "source", "caption", "named"), *rows])
    low, high = interval(hits)
    print(f"names the source: {np.mean(hits):.1%} of {len(hits)} recordings (95 % interval {low:.1%} to {high:.1%})")
    missed = Counter(clip.source for clip, hit in zip(clips, hits, strict=True) if not hit)
    print("most missed: " + ", ".join(f"{source} {count}" for source, count in missed.most_common(8)))


if __name__ == "__main__":
    main()

"""
Sequences of spoken words, a first test of transcription, from the recordings of words in an `everyday` folder.

    python recipes/prepare_speech.py --everyday data/everyday --output /tmp/speech

Writes WAV files and two manifests, `train.csv` and `validation.csv`. A train example is one word or several, from any
speakers, each a little faster or slower, over a little noise; validation is every held-out recording once alone and
once before another one. The words are wake words and few: what a model learns from them is to tell these apart and to
write them in order, not English.
"""

import argparse
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from processing_mac.audio_mac import load_waveform


RATE = 16_000  # Hz
SILENCE = 0.03  # share of the loudest 10 ms; quieter sound before and after a word is cut off
GAP = (0.05, 0.25)  # seconds between words
Word = tuple[np.ndarray, str]  # samples at 16 kHz, (samples,), and the words said in them


def read_words(folder: Path, fold: str, most_seconds: float) -> list[Word]:
    """Read and trim the recordings of a fold that were not made by a machine and whose words are known."""
    words = []
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            spoken = re.search(r'words="([^"]+)"', row["caption_hints"])
            if spoken and row["fold"] == fold and not row["synthetic"]:
                waveform = trim(load_waveform(str(folder / row["file"]), None, RATE))
                words.append((waveform[: int(most_seconds * RATE)], spoken[1].lower()))
    return words


def trim(waveform: np.ndarray) -> np.ndarray:
    """Cut off the silence at both ends, and scale the peak to 0.3 of full scale."""
    blocks = np.abs(waveform[: len(waveform) // 160 * 160]).reshape(-1, 160).max(axis=1)
    loud = np.flatnonzero(blocks > SILENCE * blocks.max())
    start, end = max(0, loud[0] - 5), loud[-1] + 6
    return waveform[start * 160 : end * 160] * (0.3 / blocks.max())


def join(words: Sequence[Word], rng: np.random.Generator) -> Word:
    """Join words with gaps between them."""
    parts: list[np.ndarray] = []
    for waveform, _ in words:
        parts += [np.zeros(int(rng.uniform(*GAP) * RATE), dtype=np.float32), waveform]
    return np.concatenate(parts), " ".join(text for _, text in words)


def train_examples(words: Sequence[Word], count: int, most_words: int, seed: int) -> Iterator[Word]:
    """Make examples of random words, each at its own speed and level, over noise of a random level."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        chosen = []
        for row in rng.integers(len(words), size=rng.integers(1, most_words + 1)):
            waveform, text = words[row]
            fast = soxr.resample(waveform, RATE, RATE / rng.uniform(0.85, 1.2))
            chosen.append((fast * rng.uniform(0.5, 1.2), text))
        sound, text = join(chosen, rng)
        yield sound + rng.normal(size=len(sound)) * 10 ** rng.uniform(-5, -1.7), text


def validation_examples(words: Sequence[Word], seed: int) -> Iterator[Word]:
    """Make an example of every word alone, then of the word before another one."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(words))
    for word in words:
        yield join([word], rng)
    for first, second in zip(order, np.roll(order, 1), strict=True):
        yield join([words[first], words[second]], rng)


def write(folder: Path, examples: Iterable[Word]) -> int:
    """Write a WAV file for each example and the manifest beside their folder; give the number of examples."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (waveform, text) in enumerate(examples):
        name = f"{folder.name}/{number:05}.wav"
        soundfile.write(folder.parent / name, waveform, RATE)
        rows.append([name, text])
    with folder.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["audio", "caption"], *rows])
    return len(rows)


def main() -> None:
    """Write the train and the validation part."""
    parser = argparse.ArgumentParser(description="Sequences of spoken words with what is said.")
    parser.add_argument("--everyday", type=Path, required=True, help="the folder with `manifest.csv`")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3000, help="training examples (default: 3000)")
    parser.add_argument("--most-words", type=int, default=2, help="in a training example (default: 2)")
    parser.add_argument("--most-seconds", type=float, default=1.5, help="of a word (default: 1.5)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train, validation = (read_words(options.everyday, fold, options.most_seconds) for fold in ("train", "validation"))
    examples = {
        "train": train_examples(train, options.count, options.most_words, options.seed),
        "validation": validation_examples(validation, options.seed),
    }
    for name, words in (("train", train), ("validation", validation)):
        count = write(options.output / name, examples[name])
        print(f"{options.output / name}.csv: {count} examples from {len(words)} recordings")


if __name__ == "__main__":
    main()

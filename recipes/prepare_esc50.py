"""
Manifests of ESC-50 for `recipes/tiny.yaml`.

    python recipes/prepare_esc50.py --esc50 path/to/esc50 --output runs/esc50

`--esc50` is a folder with `manifest.csv` (columns file, fold, category) and the recordings below `--audio`. Captions
are our own wording, `esc50_captions.yaml`. Fold 5 becomes the validation set, the others the training set, to which
recordings of silence and of noise are added. `pairs.csv` lists windows made of two validation recordings, one after
the other or both at once. `attribution.csv` names title, author and licence of what is learnt from.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import soundfile
import yaml

from processing_mac.audio_mac import load_waveform


VALIDATION_FOLD = "5"
SAMPLING_RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc50", type=Path, required=True, help="folder of ESC-50")
    parser.add_argument("--audio", default="uniform", help="sub-folder of the recordings")
    parser.add_argument("--output", type=Path, default=Path("runs/esc50"), help="folder of the manifests")
    arguments = parser.parse_args()
    wording = yaml.safe_load(Path(__file__).with_name("esc50_captions.yaml").read_text(encoding="utf-8"))
    arguments.output.mkdir(parents=True, exist_ok=True)
    with open(arguments.esc50 / "manifest.csv", encoding="utf-8", newline="") as file:
        recordings = list(csv.DictReader(file))
    folder = (arguments.esc50 / arguments.audio).resolve()
    rows: dict[str, list[dict]] = {"train": [], "validation": []}
    for recording in recordings:
        split = "validation" if recording["fold"] == VALIDATION_FOLD else "train"
        category = recording["category"]
        rows[split].append(make_row(folder / recording["file"], category, wording["sources"][category]))
    for path, source in write_silence_and_noise(arguments.output.resolve()):
        rows["train"].append(make_row(path, source, wording["no_source"][source]))
    pairs = write_pairs(arguments.output.resolve() / "pairs", rows["validation"])
    write_manifest(arguments.output / "pairs.csv", pairs)
    write_manifest(arguments.output / "attribution.csv", [attribute(one) for one in recordings])
    for split, split_rows in rows.items():
        write_manifest(arguments.output / f"{split}.csv", split_rows)
        print(f"{arguments.output / split}.csv: {len(split_rows)} clips")
    print(f"{arguments.output / 'pairs'}.csv: {len(pairs)} windows")


def make_row(path: Path, source: str, wordings: list[dict[str, str]]) -> dict[str, str]:
    """One manifest row with every wording of its source."""
    row = {"audio": str(path), "source": source}
    for number, wording in enumerate(wordings, start=1):
        row[f"caption_{number}"] = wording["clause"]
        row[f"phrase_{number}"] = wording["phrase"]
    return row


def attribute(recording: dict[str, str]) -> dict[str, str]:
    """What a CC-BY licence asks to be said of a recording."""
    return {name: recording[name] for name in ("file", "fold", "title", "author", "url", "licence")}


def write_silence_and_noise(folder: Path, count: int = 20) -> list[tuple[Path, str]]:
    """`count` recordings of (nearly) nothing and of white noise at many levels, 5 s each."""
    rng = np.random.default_rng(0)
    written = []
    for index in range(count):
        noise = rng.standard_normal(5 * SAMPLING_RATE).astype(np.float32)
        for source, level in (("silence", 0.0 if index % 2 else 3e-5), ("noise", 10 ** rng.uniform(-2.5, -0.7))):
            path = folder / f"{source}-{index}.flac"
            soundfile.write(path, np.clip(noise * level, -1, 1), SAMPLING_RATE)
            written.append((path, source))
    return written


def write_pairs(folder: Path, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """
    One window for every row: its recording and another source's, in turn one after the other and both at once.

    Recordings that sound at once are made equally strong.
    """
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    written = []
    for index, row in enumerate(rows):
        other = rng.choice([one for one in rows if one["source"] != row["source"]])
        waves = [load_waveform(one["audio"])[: 5 * SAMPLING_RATE] for one in (row, other)]
        if index % 2:
            relation, window = "while", mix([wave / (wave.std() + 1e-4) for wave in waves])
            caption = f"{row['caption_1']} while {other['caption_1']}"
        else:
            relation, window = "followed by", np.concatenate(waves)
            caption = f"{row['caption_1']}, followed by {other['phrase_1']}"
        path = folder / f"{index}.flac"
        soundfile.write(path, 0.9 * window / max(np.abs(window).max(), 0.9), SAMPLING_RATE)
        source = f"{row['source']} {relation} {other['source']}"
        written.append({"audio": str(path), "source": source, "caption": caption})
    return written


def mix(waves: list[np.ndarray]) -> np.ndarray:
    """Sum of recordings, as long as the longest."""
    mixed = np.zeros(max(map(len, waves)), dtype=np.float32)
    for wave in waves:
        mixed[: len(wave)] += wave
    return mixed


def write_manifest(path: Path, rows: list[dict[str, str]]) -> None:
    """CSV, under a temporary name first."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


if __name__ == "__main__":
    main()

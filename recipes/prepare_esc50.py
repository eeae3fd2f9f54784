"""
Manifests of ESC-50 for `recipes/tiny.yaml`.

    git clone https://github.com/karolpiczak/ESC-50
    python recipes/prepare_esc50.py --esc50 ESC-50 --output runs/esc50

`--esc50` is the data set as it is published: `meta/esc50.csv`, `audio/*.wav`, and `LICENSE`, which names title, author
and licence of each recording. Those under CC0 and CC-BY are kept. A folder with a table of one's own is read, too:
`manifest.csv` with the columns file, fold, category, title, author, url, licence.

Captions are our own wording, `esc50_captions.yaml`. Fold 5 becomes the validation set and `--folds` the training set:
1 2 3 by default, as of the checkpoint that ships. `silence.csv` and `hiss.csv` have recordings of silence and of noise
at many levels, `noise.csv` more noise, loud, for the language model alone. `pairs.csv` lists windows made of two
validation recordings, one after the other or both at once. `train-phrases.csv` and `validation-phrases.csv` have the
phrases for captions, a way to answer that a captioner of clauses can be taught. `attribution.csv` names title, author
and licence of what is learnt from.
"""

import argparse
import csv
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr
import yaml

from processing_mac.audio_mac import load_waveform
from processing_mac.whole_files_mac import write_file_whole


VALIDATION_FOLD = "5"
SAMPLING_RATE = 16_000  # Hz
LICENCES = ("CC0", "CC-BY")  # licences that let anybody use, change and share for any purpose
CREDITS = ("title", "author", "url", "licence")
CREDIT_LINE = re.compile(
    r"- \[\d-(?P<source>\d+)-\w+\.ogg\]:\s+clip derived from (?P<title>.*?)"
    r"\((?P<url>https?://\S+)\) by (?P<author>.+) \[(?P<licence>[^\]]+)\]\s*"
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc50", type=Path, required=True, help="folder of ESC-50")
    parser.add_argument("--audio", default="audio", help="its sub-folder of the recordings (default: audio)")
    parser.add_argument("--folds", nargs="+", default=["1", "2", "3"], choices=["1", "2", "3", "4"], metavar="FOLD",
                        help="to learn from (default: 1 2 3; 4 is the other one there is)")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("runs/esc50"), help="folder of the manifests")
    options = parser.parse_args(arguments)
    try:
        recordings = read_recordings(options.esc50, options.esc50 / options.audio)
        write_manifests(recordings, options.esc50 / options.audio, options.folds, options.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def write_manifests(recordings: list[dict[str, str]], audio: Path, folds: list[str], output: Path) -> None:
    """
    Write all the manifests that a training needs.

    Args:
        recordings: Recordings as `read_recordings` gives them, whose `file` is below `audio`.
        audio: Folder of the recordings.
        folds: Folds to learn from.
        output: Folder of the manifests.
    """
    wording = yaml.safe_load(Path(__file__).with_name("esc50_captions.yaml").read_text(encoding="utf-8"))
    output.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict]] = {"train": [], "validation": [], "silence": [], "hiss": [], "noise": []}
    for recording in recordings:
        if recording["fold"] in (*folds, VALIDATION_FOLD):
            split = "validation" if recording["fold"] == VALIDATION_FOLD else "train"
            category = recording["category"]
            rows[split].append(make_row(audio.resolve() / recording["file"], category, wording["sources"][category]))
    for path, source in write_silence_and_noise(output.resolve()):
        table = "silence" if source == "silence" else "hiss"
        rows[table].append(make_row(path, source, wording["no_source"][source]))
    for path in write_loud_noise(output.resolve()):
        rows["noise"].append(make_row(path, "noise", wording["no_source"]["noise"]))
    for split in ("train", "validation"):
        rows[f"{split}-phrases"] = [speak_in_phrases(row) for row in rows[split]]
    pairs = write_pairs(output.resolve() / "pairs", rows["validation"])
    write_manifest(output / "pairs.csv", pairs)
    learnt_from = [one for one in recordings if one["fold"] in folds]
    write_manifest(output / "attribution.csv", [attribute(one) for one in learnt_from])
    for split, split_rows in rows.items():
        write_manifest(output / f"{split}.csv", split_rows)
        print(f"{output / split}.csv: {len(split_rows)} clips")
    print(f"{output / 'pairs'}.csv: {len(pairs)} windows")


def read_recordings(folder: Path, audio: Path) -> list[dict[str, str]]:
    """
    Read the recordings that may be used, with file, fold, category and credits.

    Raises:
        ValueError: Neither table is there, a recording has no credits, or a recording is missing.
    """
    if (folder / "meta" / "esc50.csv").is_file():
        recordings = read_published(folder)
    elif (folder / "manifest.csv").is_file():
        recordings = read_table(folder / "manifest.csv")
    else:
        raise ValueError(f"{folder}: neither meta/esc50.csv nor manifest.csv; expected ESC-50 as it is published.")
    recordings = [one for one in recordings if one["licence"] in LICENCES]
    if missing := [one["file"] for one in recordings if not (audio / one["file"]).is_file()]:
        raise ValueError(f"{audio}: {len(missing)} recordings are missing, the first is {missing[0]}; see --audio.")
    return recordings


def read_published(folder: Path) -> list[dict[str, str]]:
    """Join `meta/esc50.csv` with the lines of `LICENSE`."""
    notice = next(iter(sorted(folder.glob("LICENSE*"))), None)
    if notice is None:
        raise ValueError(f"{folder}: no LICENSE; expected ESC-50's, which names each recording's author and licence.")
    lines = notice.read_text(encoding="utf-8").splitlines()
    # Credits are found by recording on Freesound, which may have several clips, since a clip's own name is misspelt
    # here and there.
    credits = {found["source"]: found.groupdict() for found in map(CREDIT_LINE.fullmatch, lines) if found}
    recordings = []
    for row in read_table(folder / "meta" / "esc50.csv"):
        if row["src_file"] not in credits:
            raise ValueError(f"{notice}: no line for {row['filename']}; expected its title, author and licence.")
        told = {name: credits[row["src_file"]][name].strip() for name in CREDITS}
        recordings.append({"file": row["filename"], "fold": row["fold"], "category": row["category"], **told})
    return recordings


def read_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def make_row(path: Path, source: str, wordings: list[dict[str, str]]) -> dict[str, str]:
    """Make one manifest row with every wording of its source."""
    row = {"audio": str(path), "source": source}
    for number, wording in enumerate(wordings, start=1):
        row[f"caption_{number}"] = wording["clause"]
        row[f"phrase_{number}"] = wording["phrase"]
    return row


def speak_in_phrases(row: dict[str, str]) -> dict[str, str]:
    """Make a manifest row whose captions are the phrases of another one."""
    phrases = {name.replace("phrase", "caption"): text for name, text in row.items() if name.startswith("phrase")}
    return {"audio": row["audio"], "source": row["source"], **phrases}


def attribute(recording: dict[str, str]) -> dict[str, str]:
    """Give what a CC-BY licence asks to be said of a recording."""
    return {name: recording[name] for name in ("file", "fold", *CREDITS)}


def write_silence_and_noise(folder: Path, count: int = 20) -> list[tuple[Path, str]]:
    """Write `count` recordings of (nearly) nothing and of noise, white or hissing, at many levels, of 0.1 to 10 s."""
    rng = np.random.default_rng(0)
    written = []
    for index in range(count):
        seconds = 5.0 if index % 4 == 0 else 10 ** rng.uniform(-1, 1)
        noise = rng.standard_normal(round(seconds * SAMPLING_RATE)).astype(np.float32)
        if index % 5 == 4:  # so that it sounds like a recording at 8 kHz
            noise = soxr.resample(noise[::2], SAMPLING_RATE // 2, SAMPLING_RATE)
        # A step of 16 bits is at some -96 dB of full scale, so a recording below -90 dB is called silence.
        for source, decibels in (("silence", rng.uniform(-110, -92)), ("noise", rng.uniform(-85, -14))):
            level = 0.0 if source == "silence" and index % 2 else 10 ** (decibels / 20)
            path = folder / f"{source}-{index}.flac"
            soundfile.write(path, np.clip(noise * level, -1, 1), SAMPLING_RATE, subtype="PCM_24")
            written.append((path, source))
    return written


def write_loud_noise(folder: Path, count: int = 60) -> list[Path]:
    """Write `count` recordings of white noise, 1 to 10 s, for a language model that must not take it for rain."""
    rng = np.random.default_rng(1)
    paths = [folder / f"loud-noise-{index}.flac" for index in range(count)]
    for path in paths:
        noise = rng.standard_normal(round(rng.uniform(1, 10) * SAMPLING_RATE)) * 10 ** (rng.uniform(-30, -8) / 20)
        soundfile.write(path, np.clip(noise, -1, 1), SAMPLING_RATE, subtype="PCM_24")
    return paths


def write_pairs(folder: Path, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """
    Make one window for every row: its recording and another source's, in turn one after the other and both at once.

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
    """Sum recordings to one that is as long as the longest."""
    mixed = np.zeros(max(map(len, waves)), dtype=np.float32)
    for wave in waves:
        mixed[: len(wave)] += wave
    return mixed


def write_manifest(path: Path, rows: list[dict[str, str]]) -> None:
    """A CSV file with all columns that any row has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with write_file_whole(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

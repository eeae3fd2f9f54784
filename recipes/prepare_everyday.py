"""
Manifests of ESC-50 and of the everyday sounds, for `mix_everyday.py` and for evaluation.

    python recipes/prepare_everyday.py --esc50 ESC-50 --everyday data/everyday --output runs/everyday

`--esc50` is read as by `prepare_esc50.py`. `--everyday` is a folder with `manifest.csv`: file, fold (train or
validation), labels (AudioSet display names with ";" between), synthetic, teacher_agree, kind, title, author, url and
licence.

Writes into `--output`:
    train.csv          recordings to learn from, each of a kind of `everyday_captions.yaml`
    attribution.csv    title, author, address and licence of each of them
and, for `mac-eval captioning --naming everyday`, of the recordings that are not learnt from:
    validation.csv     each of one kind of `evaluation_mac/metrics/everyday_naming.py`
    voices.csv         one man, woman or child who speaks
    over.csv           somebody who speaks over something else
    left_out.csv       kinds that are never learnt: only what they are in general may be said
    minutes.csv        a minute of four sounds each, one after another
    plain.csv          digital silence, white noise, a tone
    signals.csv        tones of 80 to 6,000 Hz, and noises from white to brown
The captions are our own wording, by the grammar of `everyday_captions.yaml`.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import soundfile


sys.path.insert(0, str(Path(__file__).parent))

from everyday_grammar import Grammar
from everyday_plain import noises, tones
from prepare_esc50 import CREDITS, VALIDATION_FOLD, read_recordings, read_table, write_manifest

from evaluation_mac.metrics.everyday_naming import kind_of
from evaluation_mac.metrics.naming import some_of
from processing_mac.audio_mac import load_waveform


MIXED = ("speech+noise", "speech+music", "two sounds")  # values of `kind` where several kinds sound at once
VOICES = ("man", "woman", "child")
RATE = 16_000  # Hz
MINUTES = 100  # recordings of a minute each
PLAIN_SECONDS = (0.5, 2, 5, 10, 30)  # lengths of silence, noise and tones
PLAIN_TRAIN = 40  # how many of each there are to learn from
SIGNALS = 32  # how many tones, and how many noises, of other kinds than these are heard

Heard = list[tuple[Path, str]]  # recordings to measure a model by, and their kinds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc50", type=Path, required=True, help="folder of ESC-50")
    parser.add_argument("--audio", nargs="+", default=["audio"], metavar="FOLDER",
                        help="its sub-folders of recordings (default: audio); a later one may have fewer")  # fmt: skip
    parser.add_argument("--everyday", type=Path, required=True, help="folder of the everyday sounds")
    parser.add_argument("--output", type=Path, default=Path("runs/everyday"), help="folder of the manifests")
    options = parser.parse_args(arguments)
    try:
        write_manifests(options.esc50, options.audio, options.everyday, options.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def write_manifests(esc50: Path, audio: list[str], everyday: Path, output: Path) -> None:
    """
    Write all manifests, and the recordings that are made for them.

    Args:
        esc50: Folder of the ESC-50 data set.
        audio: Names of its folders with the same recordings in several qualities, all or some of them.
        everyday: Folder of the everyday sounds.
        output: Folder of the manifests.
    """
    grammar = Grammar()
    sounds, folder = read_everyday(everyday), everyday.resolve()
    output.mkdir(parents=True, exist_ok=True)
    train, credits, heard = [], [], []
    for recording in read_recordings(esc50, esc50 / audio[0]):
        paths = [(esc50 / folder / recording["file"]).resolve() for folder in audio]
        if recording["fold"] == VALIDATION_FOLD:  # prepare_esc50.py writes a table of them
            heard.append((paths[0], recording["category"]))
        else:
            group = group_of(f"esc50:{recording['file']}")
            train += [make_row(path, recording["category"], group, grammar) for path in paths if path.is_file()]
            credits.append(recording)
    for recording in sounds:
        name = kind_alone(recording, grammar)
        if name and recording["fold"] == "validation":
            heard.append((folder / recording["file"], name))
        elif name and (recording["teacher_agree"] == "1" or recording["synthetic"]):  # else its label is a file name's
            train.append(make_row(folder / recording["file"], name, group_of(recording["group"]), grammar))
            credits.append(recording)
    write_manifest(output / "attribution.csv", [{name: one[name] for name in ("file", *CREDITS)} for one in credits])
    made = write_plain(output.resolve() / "plain-train", PLAIN_TRAIN, seed=1)
    train += [make_row(path, name, path.stem, grammar) for path, name in made]
    plain = write_plain(output.resolve() / "plain", len(PLAIN_SECONDS), seed=0)
    signals = write_signals(output.resolve() / "signals", SIGNALS, seed=0)
    ours = [(path, name) for path, name in heard if folder in path.parents]
    tables = {
        "train": train,
        "validation": [measured(path, kind_of(grammar.kinds[name].named), name, grammar) for path, name in ours],
        "voices": [measured(path, name, name, grammar) for path, name in ours if name in VOICES],
        "over": speech_over(sounds, folder, grammar),
        "left_out": left_out(sounds, folder, grammar),
        "minutes": write_minutes(output.resolve() / "minutes", heard, grammar),
        "plain": [measured(path, kind_of(grammar.kinds[name].named), name, grammar) for path, name in plain],
        "signals": [measured(path, kind_of(grammar.kinds[name].named), name, grammar) for path, name in signals],
    }
    for table, rows in tables.items():
        write_manifest(output / f"{table}.csv", rows)
        print(f"{output / table}.csv: {len(rows)} recordings")


def read_everyday(folder: Path) -> list[dict[str, str]]:
    """
    Read the rows of the manifest.

    Raises:
        ValueError: A recording is missing.
    """
    rows = read_table(folder / "manifest.csv")
    if missing := [row["file"] for row in rows if not (folder / row["file"]).is_file()]:
        raise ValueError(f"{folder}: {len(missing)} recordings are missing, the first is {missing[0]}.")
    return rows


def kind_alone(recording: dict[str, str], grammar: Grammar) -> str | None:
    """Find the kind of a recording of one sound; None for a mixture, for what is left out, and if no kind fits."""
    labels = recording["labels"].split(";")
    if recording["kind"] in MIXED or grammar.kind_left_out(labels):
        return None
    return grammar.find(labels)


def group_of(group: str) -> str:
    """Name the speaker, take or source that a recording shares with others; clips of ESC-50 share theirs."""
    return re.sub(r"^esc50:\d-(\d+)-.*", r"esc50:\1", group)


def make_row(path: Path, name: str, group: str, grammar: Grammar) -> dict[str, str]:
    """Make one row to learn from, with every wording of its kind."""
    row = {"audio": str(path), "source": name, "group": group}
    for number, (clause, phrase) in enumerate(grammar.kinds[name].wording, start=1):
        row[f"caption_{number}"], row[f"phrase_{number}"] = clause, phrase
    return row


def measured(path: Path, source: str, name: str, grammar: Grammar) -> dict[str, str]:
    """Make one row to measure a model by, with the sentences of the kind `name` as references."""
    row = {"audio": str(path), "source": source, "kind": name}
    sentences = enumerate(dict.fromkeys(clause for clause, _ in grammar.kinds[name].wording), start=1)
    return {**row, **{f"caption_{number}": sentence for number, sentence in sentences}}


def speech_over(sounds: list[dict[str, str]], folder: Path, grammar: Grammar) -> list[dict[str, str]]:
    """List the recordings of the validation fold in which somebody speaks over something else that has a kind."""
    rows = []
    for recording in sounds:
        labels = recording["labels"].split(";")
        other = grammar.find([label for label in labels if "speech" not in label.lower()])
        if recording["kind"] not in ("speech+noise", "speech+music") or recording["fold"] != "validation":
            continue
        if other and not grammar.kind_left_out(labels):
            source = f"speech while {kind_of(grammar.kinds[other].named)}"
            caption = f"someone is talking while {grammar.kinds[other].wording[0][0]}"
            rows.append({"audio": str(folder / recording["file"]), "source": source, "caption": caption})
    return rows


def left_out(sounds: list[dict[str, str]], folder: Path, grammar: Grammar) -> list[dict[str, str]]:
    """List real recordings of the kinds that are never learnt, with what is true of them in general."""
    rows = []
    for recording in sounds:
        unknown = grammar.kind_left_out(recording["labels"].split(";"))
        if unknown and recording["kind"] not in MIXED and not recording["synthetic"]:
            true = grammar.left_out[unknown]
            row = measured(folder / recording["file"], some_of(true), true[0], grammar)
            rows.append({**row, "kind": unknown})
    return rows


def write_minutes(folder: Path, heard: Heard, grammar: Grammar) -> list[dict[str, str]]:
    """Write recordings of a minute: four of different kinds, a quarter each, repeated with pauses."""
    folder.mkdir(exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    some = [(path, name) for path, name in heard if name not in ("silence", "noise")]
    if len({kind_of(grammar.kinds[name].named) for _, name in some}) < 4:
        raise ValueError("The recordings that are not learnt from are of fewer than four kinds.")
    for number in range(MINUTES):
        parts: dict[str, tuple[Path, str]] = {}
        while len(parts) < 4:
            path, name = some[int(rng.integers(len(some)))]
            parts.setdefault(kind_of(grammar.kinds[name].named), (path, name))
        minute = []
        for path, _ in parts.values():
            wave = load_waveform(str(path))
            pause = np.zeros(int(rng.uniform(0.2, 1) * RATE), np.float32)
            minute.append(np.resize(np.concatenate([0.05 * wave / (wave.std() + 1e-4), pause]), 15 * RATE))
        audio = folder / f"{number}.flac"
        soundfile.write(audio, np.clip(np.concatenate(minute), -1, 1), RATE)
        caption = grammar.tell([name for _, name in parts.values()], "sequence", rng)
        rows.append({"audio": str(audio), "source": " then ".join(parts), "caption": caption})
    return rows


def write_plain(folder: Path, count: int, seed: int) -> Heard:
    """Write recordings of silence, of white noise and of tones, `count` of each, of several lengths and levels."""
    folder.mkdir(exist_ok=True)
    rng, written = np.random.default_rng(seed), []
    for number in range(count):
        length, level = round(PLAIN_SECONDS[number % len(PLAIN_SECONDS)] * RATE), 10 ** (-rng.uniform(5, 40) / 20)
        tone = np.sin(2 * np.pi * rng.uniform(200, 4000) / RATE * np.arange(length))
        noise = np.clip(rng.standard_normal(length) / 4, -1, 1)
        for name, wave in {"silence": 0 * tone, "noise": noise * level, "tone": tone * level}.items():
            audio = folder / f"{name}-{number}.flac"
            soundfile.write(audio, wave, RATE)
            written.append((audio, name))
    return written


def write_signals(folder: Path, count: int, seed: int) -> Heard:
    """Write tones of any frequency, half of them near that of dial tones, and noises, `count` of each, up to 10 s."""
    folder.mkdir(exist_ok=True)
    rng, written = np.random.default_rng(seed), []
    for number in range(count):
        for name, make in {"tone": tones, "noise": noises}.items():
            _, wave = make(round(rng.uniform(1, 10) * RATE), rng)
            audio = folder / f"{name}-{number}.flac"
            soundfile.write(audio, np.clip(wave, -1, 1), RATE)
            written.append((audio, name))
    return written


if __name__ == "__main__":
    main()

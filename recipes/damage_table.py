"""
A manifest of damaged copies of recordings, to measure what a model makes of telephones, MP3s, rooms and the like.

    python recipes/damage_table.py --data runs/esc50/validation.csv --way telephone --output runs/esc50-telephone
    mac-eval captioning --model model_cards/mac-small --data runs/esc50-telephone/table.csv --naming esc50 \
        --output results/telephone

Every way is one of those of `everyday_damage.py` at one strength. What is random in it comes from the name of the
recording's file, so that it is the same whenever and wherever it is made.
"""

import argparse
import csv
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile


sys.path.insert(0, str(Path(__file__).parent))

from everyday_damage import (
    QUIET,
    RATE,
    Random,
    Wave,
    at_hertz,
    by_telephone,
    coded,
    cut_off,
    echoed,
    level_of,
    with_noise,
    with_peak,
)
from prepare_esc50 import read_table

from processing_mac.audio_mac import load_waveform
from processing_mac.whole_files_mac import write_folder_whole


WAYS: dict[str, tuple[str, Callable[[Wave, Random], Wave]]] = {
    "mp3": ("an MP3 of 24 kbit/s", lambda wave, rng: coded(wave, "MP3", None, 0.9)),
    "telephone": ("8 kHz, coded as mobile telephones do (GSM)", lambda wave, rng: by_telephone(wave, "GSM610")),
    "8khz": ("recorded at 8 kHz", lambda wave, rng: at_hertz(wave, 8_000)),
    "room": ("an echo of 0.6 s as loud as the sound", lambda wave, rng: echoed(wave, rng, 0.6, 1.0)),
    "noise": ("white noise 10 dB below", lambda wave, rng: with_noise(wave, rng.standard_normal(len(wave)), 10)),
    "loud": ("18 dB of the peaks cut off", lambda wave, rng: cut_off(wave, 18)),
    "quiet": ("a peak of -45 dB, in 16 bits", lambda wave, rng: with_peak(wave, -45)),
}


def main(arguments: list[str] | None = None) -> None:
    ways = "\n".join(f"  {name:10} {told}" for name, (told, _) in WAYS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"ways:\n{ways}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="manifest with a column `audio`")
    parser.add_argument("--way", choices=list(WAYS), required=True, help="what happens to the recordings")
    parser.add_argument("--output", type=Path, required=True, help="folder of the copies, and of their table.csv")
    options = parser.parse_args(arguments)
    try:
        damage_table(options.data, options.way, options.output)
    except (OSError, ValueError, soundfile.SoundFileError) as error:
        parser.error(str(error))


def damage_table(data: Path, way: str, output: Path) -> None:
    """
    Write damaged copies of the recordings of a manifest, as FLAC, and their manifest.

    Raises:
        ValueError: The manifest has no recordings, one is missing or faulty, or there is something at `output`.
        SoundFileError: libsndfile lacks the codec.
    """
    rows = read_table(data)
    if not rows or not all(row.get("audio") for row in rows):
        raise ValueError(f"{data}: expected a manifest with a column `audio` and a row or more.")
    if missing := [row["audio"] for row in rows if not (data.parent / row["audio"]).is_file()]:
        raise ValueError(f"{data}: {len(missing)} recordings are missing, the first is {missing[0]}.")
    if output.exists():
        raise ValueError(f"{output} is there already: remove it, or name another --output.")
    with write_folder_whole(output) as folder:
        for number, row in enumerate(rows):
            name = f"{number:05d}-{Path(row['audio']).stem}.flac"
            wave = load_waveform(str(data.parent / row["audio"]))
            if level_of(wave) >= QUIET:
                wave = WAYS[way][1](wave, np.random.default_rng(zlib.crc32(Path(row["audio"]).name.encode())))
            soundfile.write(folder / name, np.clip(wave, -1, 1), RATE)
            row["audio"] = name
        with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()

"""
Gathers the everyday sounds that `mac-small` learnt from, from the public sources that they come from.

    python recipes/gather_everyday.py --list
    python recipes/gather_everyday.py --sources downloads --esc50 downloads/ESC-50 --output data/everyday

`--list` prints the commands that get all the sources; run them in the folder `downloads`. The script finds the
recordings there, wherever they lie, cuts each to at most 10 s of mono at 16 kHz, makes the mixes, signals, voices and
music that nobody recorded, and writes them as Opus, with the `manifest.csv` that `prepare_everyday.py` reads. What is
known of each is in `everyday_sources.csv`. A recording that is there already is kept: a run can be taken up again.

Recordings that are missing or broken are counted at the end, with the reasons, and what is made of them is left out;
it is an error only if nothing was found. With `--only` recordings of other sources stay as they are.
"""

import argparse
import csv
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile


sys.path.insert(0, str(Path(__file__).parent))

from everyday_mixes import make_mix
from everyday_music import SOUNDFONT, play
from everyday_signals import make_signal
from everyday_sources import RATE, SOURCES, Downloads, count_alike, cut, cut_at, debian, git, pad, read, trim, where
from everyday_table import MANIFEST, Row, read_rows
from everyday_voices import change_voice, speak
from tqdm import tqdm

from processing_mac.audio_mac import load_waveform
from processing_mac.whole_files_mac import write_file_whole


OTHERS = {  # besides SOURCES, what recordings are made with
    "esc50": git("karolpiczak/ESC-50").get,
    "fluidr3_gm": debian("fluid-soundfont-gm").get + "; apt-get install fluidsynth",
    "tts": "apt-get install espeak-ng flite",
    "voice_fx": "pip install pyworld 'setuptools<81'",
}
COMPRESSION = 0.88  # of Opus: some 36 kbit/s
MOST_REASONS = 5  # that are printed of a source
COLUMNS = ("file", "source_dataset", *MANIFEST[:-1], "seconds", "rms_db", "teacher_agree")


class MissingError(ValueError):
    """What a recording is made of is not there."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print how to get each source, and end")
    parser.add_argument("--sources", type=Path, help="folder that all the sources were downloaded to")
    parser.add_argument("--esc50", type=Path, help="folder of ESC-50 (default: ESC-50 below --sources)")
    parser.add_argument("--output", type=Path, default=Path("data/everyday"), help="folder of the recordings")
    parser.add_argument("--only", nargs="+", metavar="SOURCE", help="sources to gather (default: all)")
    options = parser.parse_args(arguments)
    if options.list:
        for name, get in how_to_get().items():
            print(f"{name + ':':16} {get}")
        return
    if options.sources is None or not options.sources.is_dir():
        parser.error(f"--sources {options.sources}: no such folder; expected what the commands of --list get.")
    try:
        gather(options.sources, options.esc50 or options.sources / "ESC-50", options.output, options.only)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def how_to_get() -> dict[str, str]:
    return {name: source.get for name, source in SOURCES.items()} | OTHERS


def gather(downloads: Path, esc50: Path, output: Path, only: list[str] | None = None) -> None:
    """
    Write all the recordings whose sources are there, and the manifest.

    Raises:
        ValueError: A source of `only` does not exist, or no source was found.
    """
    rows = read_rows()
    names = list(dict.fromkeys(row.source for row in rows))
    if unknown := set(only or ()) - set(names):
        raise ValueError(f"--only {' '.join(sorted(unknown))}: no such source; expected some of {', '.join(names)}.")
    maker = Maker(Downloads(downloads), Downloads(esc50), output, rows)
    written: list[dict[str, str]] = []
    missing: dict[str, Counter[str]] = {}
    # Mixes are made of recordings, so they come last.
    for row in tqdm(sorted(rows, key=lambda row: bool(row.parts)), unit=" recordings", disable=None):
        if only and row.source not in only and not maker.path(row).is_file():
            continue
        try:
            written.append(describe(row, maker.make(row)))
        except ValueError as error:  # one broken file keeps no other from being gathered
            missing.setdefault(row.source, Counter())[str(error)] += 1
    report(rows, written, missing)
    if not written:
        raise ValueError(f"{downloads}: no recording of any source; expected what the commands of --list get.")
    with (
        write_file_whole(output / "manifest.csv") as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted(written, key=lambda row: row["file"]))


class Maker:
    """Makes the recordings of the rows, and writes them."""

    def __init__(self, downloads: Downloads, esc50: Downloads, output: Path, rows: list[Row]) -> None:
        self.downloads, self.esc50, self.output = downloads, esc50, output
        self.alike = count_alike(rows)
        self.makers: dict[str, Callable[[Row], np.ndarray]] = {
            "signals": make_signal,
            "tts": self.speak,
            "fluidr3_gm": self.play,
            "voice_fx": self.change_voice,
            "mixes": self.mix,
            "applause": self.mix,
        }

    def make(self, row: Row) -> np.ndarray:
        """Write a recording, unless it is there, and give it as it is read back, (samples,)."""
        path = self.path(row)
        if not path.is_file():
            wave = self.makers.get(row.source, self.take)(row)
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_file_whole(path) as temporary:
                soundfile.write(temporary, wave, RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION)
        return load_waveform(str(path))

    def path(self, row: Row) -> Path:
        return self.output / f"{row.stem}.opus"

    def take(self, row: Row) -> np.ndarray:
        """Cut a recording from its source."""
        path = self.downloads.find(*where(row))
        if path is None:
            raise MissingError(f"{where(row)[0]} is not there")
        wave = read(path, row)
        return cut_at(wave, row.cut) if row.cut else cut(wave, *self.alike[row.stem])

    def parts(self, row: Row) -> list[np.ndarray]:
        """Read the recordings that a row is made of."""
        waves = []
        for part in row.parts:
            if part.file.startswith("esc50/"):
                name = part.file.removeprefix("esc50/")
                path = self.esc50.find(name + ".wav", name + ".opus")
            else:
                path = self.output / f"{part.file}.opus"
            if path is None or not path.is_file():
                raise MissingError(f"it is made of recordings of {part.file.split('/')[0]} that are not there")
            waves.append(load_waveform(str(path)))
        return waves

    def mix(self, row: Row) -> np.ndarray:
        return make_mix(row, self.parts(row))

    def change_voice(self, row: Row) -> np.ndarray:
        (speech,) = self.parts(row)
        return pad(trim(change_voice(row, speech)))

    def speak(self, row: Row) -> np.ndarray:
        program = "espeak-ng" if row.manifest["group"].startswith("espeak") else "flite"
        need(program)
        with tempfile.TemporaryDirectory() as folder:
            return speak(row, Path(folder))

    def play(self, row: Row) -> np.ndarray:
        need("fluidsynth")
        soundfont = self.downloads.find(SOUNDFONT)
        if soundfont is None:
            raise MissingError(f"{SOUNDFONT} is not there")
        with tempfile.TemporaryDirectory() as folder:
            return cut(play(row, soundfont, Path(folder)))


def need(program: str) -> None:
    if shutil.which(program) is None:
        raise MissingError(f"the program {program} is not installed")


def describe(row: Row, wave: np.ndarray) -> dict[str, str]:
    """Make a row of the manifest of what the table says and of how long and how strong a recording is."""
    strength = np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    measured = {
        "seconds": f"{round(len(wave) / RATE, 2)}",
        "rms_db": f"{max(20 * np.log10(strength + 1e-9), -180):.1f}",
    }
    return {"file": f"{row.stem}.opus", "source_dataset": row.source, **row.manifest, **measured}


def report(rows: list[Row], written: list[dict[str, str]], missing: dict[str, Counter[str]]) -> None:
    """Print how many recordings of each source there are, and what is missing."""
    known = Counter(row.source for row in rows)
    made = Counter(row["source_dataset"] for row in written)
    for source in sorted(made.keys() | missing.keys()):
        print(f"{source + ':':16} {made[source]} of {known[source]} recordings")
        reasons = missing.get(source, Counter()).most_common()
        for reason, times in reasons[:MOST_REASONS]:
            print(f"{'':16} missing {times}: {reason}")
        if len(reasons) > MOST_REASONS:
            print(f"{'':16} missing {sum(times for _, times in reasons[MOST_REASONS:])} more")
        if not made[source] and source in how_to_get():
            print(f"{'':16} get it: {how_to_get()[source]}")
    print(f"{'all:':16} {len(written)} of {len(rows)} recordings")


if __name__ == "__main__":
    main()

"""
Finds the recordings of the everyday sounds in what was downloaded, and cuts them.

A recording is cut to at most 10 s. Where a file has several these are spread evenly, from 2 % of its length to 2 %
before its end. What is 48 dB below the loudest 10 ms is cut off at both ends, but for 80 ms. A recording that is then
shorter than a second is put into 1.1 s of silence, 0.1 s after its start. A few have a place of their own in the
table's column `cut`: START+LENGTH, in seconds.
"""

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from everyday_table import Row

from processing_mac.audio_mac import load_waveform


RATE = 16_000  # Hz
BLOCK = RATE // 100  # samples, 10 ms
LONGEST = 10 * RATE  # samples
QUIET = 48  # dB below the loudest block
KEPT = 8  # blocks that are kept before and after what is louder
SHORTEST, PADDED, BEFORE = RATE, round(1.1 * RATE), round(0.1 * RATE)  # samples
LOOP = 6 * RATE  # a shorter loop of Sonic Pi is repeated until it is as long, up to 8 s
MOST_REPEATED = 8 * RATE


@dataclass(frozen=True)
class Source:
    """A public source: how to get it, and the end of a recording's path there, with the name from the table in it."""

    get: str
    paths: tuple[str, ...]


def git(address: str, *paths: str) -> Source:
    return Source(f"git clone --depth 1 https://github.com/{address}", paths)


def debian(package: str, *paths: str) -> Source:
    return Source(f"apt-get download {package} && dpkg-deb -x {package}_*.deb {package}", paths)


SOURCES = {
    "asterisk_ru": debian("asterisk-core-sounds-ru-g722", "{name}.g722"),
    "berklee_olpc": git("Tonejs/audio", "berklee/{name}.mp3"),
    "blanket": git("rafaelmardojai/blanket", "sounds/{name}.ogg"),
    "cc_sounds_cdda": git("Fris0uman/CDDA-Soundpacks", "CC-Sounds/{name}.ogg"),
    "donateacry": git("gveres/donateacry-corpus", "{name}"),
    "fof_sectoid": debian("fretsonfire-songs-sectoid", "sectoid/{name}"),
    "kerstin_de": git("rhasspy/dataset-voice-kerstin", "audio/de_rhasspy-{name}.webm"),
    "luanti_sounds": git("AntumMT/mod-sounds", "sounds/sounds_{name}.ogg", "sounds/sounds_node_{name}.ogg"),
    "openclonk": git("openclonk/openclonk", "planet/Sound.ocg/{name}"),
    "opensfx": debian("openttd-opensfx", "opensfx.cat"),
    "picovoice_s2i": git("Picovoice/speech-to-intent-benchmark", "data/speech/clean/{name}.wav"),
    "picovoice_wake": git("Picovoice/wake-word-benchmark", "audio/{name}"),
    "sonic_pi": git("sonic-pi-net/sonic-pi", "samples/{name}.flac"),
    "voxelibre": git("VoxeLibre/VoxeLibre", "sounds/{name}.ogg"),
}
DEEPEST = 6  # parts of a path that it is found by


class Downloads:
    """
    The files below a folder, found by the end of their paths, whatever their case, and whether "_", "/" or a space
    parts their words: some names in the table have only spaces.
    """

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Path] = {}
        for parent, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if name != ".git")
            for name in sorted(names):
                path = Path(parent, name)
                parts = path.relative_to(folder).parts
                for start in range(max(0, len(parts) - DEEPEST), len(parts)):
                    self.files.setdefault(plain("/".join(parts[start:])), path)

    def find(self, *ends: str) -> Path | None:
        """Find a file whose path has one of these ends, the first rather than another."""
        return next((self.files[plain(end)] for end in ends if plain(end) in self.files), None)


def where(row: Row) -> list[str]:
    """List the ends that the path of a recording's file may have."""
    return [path.format(name=row.name) for path in SOURCES[row.source].paths]


def plain(path: str) -> str:
    return " ".join(path.lower().replace("_", " ").replace("/", " ").split())


def read(path: Path, row: Row) -> np.ndarray:
    """
    Read a whole file of a source, (samples,) at 16 kHz.

    Raises:
        ValueError: It cannot be decoded; the message names it.
    """
    if path.suffix == ".cat":
        return load_waveform(read_cat(path, int(row.name)), name=f"{path}, sound {row.name}")
    if path.suffix == ".g722":  # samples without a header: nothing in it says what it is
        return read_g722(path)
    waveform = load_waveform(str(path))
    if row.source == "sonic_pi" and row.name.startswith("loop_") and len(waveform) < LOOP:
        waveform = np.tile(waveform, -(-LOOP // len(waveform)))[:MOST_REPEATED]
    return waveform


def read_g722(path: Path) -> np.ndarray:
    """Read samples that are coded by G.722, at 16 kHz."""
    try:
        with av.open(str(path), format="g722") as file:
            return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)]).astype(np.float32) / 2**15
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"{path}: no sound of G.722 ({error}).") from error


def read_cat(path: Path, number: int) -> bytes:
    """Read a sound, a WAV file, from OpenTTD's container: pairs of place and length, then sounds with their names."""
    data = path.read_bytes()
    count = (int.from_bytes(data[:4], "little") & 0x7FFFFFFF) // 8
    if number >= count:
        raise ValueError(f"{path}: {count} sounds; expected number {number}.")
    place, length = struct.unpack_from("<II", data, 8 * number)
    place &= 0x7FFFFFFF
    start = place + 1 + data[place]
    return data[start : start + length]


def cut(waveform: np.ndarray, which: int = 0, count: int = 1) -> np.ndarray:
    """
    Cut one of `count` recordings from a file's samples.

    Args:
        waveform: (samples,) at 16 kHz.
        which: Which of them, from 0.
        count: How many there are of the file.

    Returns:
        (samples,), 1 to 10 s.
    """
    if count > 1:
        first, last = 0.02 * len(waveform), 0.98 * len(waveform) - LONGEST
        start = int(first + max(last - first, 0) * which / (count - 1))
        waveform = waveform[start:]
    return pad(trim(waveform[:LONGEST]))


def cut_at(waveform: np.ndarray, place: str) -> np.ndarray:
    """Cut a recording with a place of its own, `START+LENGTH` in seconds."""
    start, length = (round(float(seconds) * RATE) for seconds in place.split("+"))
    return waveform[start : start + length]


def trim(waveform: np.ndarray) -> np.ndarray:
    """Cut off what is quiet at both ends, in blocks of 10 ms; a silent waveform is given back as it is."""
    blocks = waveform[: len(waveform) // BLOCK * BLOCK].reshape(-1, BLOCK)
    level = np.sqrt((blocks.astype(np.float64) ** 2).mean(axis=1))
    loud = np.flatnonzero(level > level.max(initial=0) * 10 ** (-QUIET / 20))
    if not len(loud):
        return waveform
    return waveform[max(0, loud[0] - KEPT) * BLOCK : (loud[-1] + 1 + KEPT) * BLOCK]


def pad(waveform: np.ndarray) -> np.ndarray:
    """Put a waveform that is shorter than a second into silence."""
    if len(waveform) >= SHORTEST:
        return waveform
    return np.pad(waveform, (BEFORE, PADDED - BEFORE - len(waveform)))


def count_alike(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """Say of each recording, by its file, which it is of how many of the same file of its source."""
    alike: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        alike.setdefault((row.source, row.name), []).append(row.stem)
    return {stem: (place, len(stems)) for stems in alike.values() for place, stem in enumerate(stems)}

"""
Compares two folders of the everyday sounds, recording by recording: how near is what `gather_everyday.py` made?

    python recipes/compare_everyday.py data/everyday other/everyday

Prints for each source how many recordings both folders have, how many are of the same length to 10 ms, and the
correlation of their samples: of half of them, and of nearly all (19 of 20), at least. Two that Opus encoded of the
same samples, at 36 kbit/s, correlate by 0.9 (hiss) to 1.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from processing_mac.audio_mac import load_waveform


RATE = 16_000  # Hz
MOST_SHIFT = RATE // 100  # samples


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    options = parser.parse_args(arguments)
    found = compare_folders(options.one, options.other)
    if not found:
        parser.error(f"{options.one} and {options.other} have no recording in common; expected SOURCE/NAME.opus.")
    for source, pairs in found.items():
        alike = sorted(correlation for correlation, _ in pairs)
        same = sum(abs(longer) <= MOST_SHIFT for _, longer in pairs)
        print(f"{source + ':':16} {len(pairs)} recordings, {same} of the same length, "
              f"correlation of half {np.median(alike):.3f}, of nearly all {alike[len(alike) // 20]:.3f}")  # fmt: skip


def compare_folders(one: Path, other: Path) -> dict[str, list[tuple[float, int]]]:
    """Give for each source the correlation and the difference in samples of each recording that both folders have."""
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for path in sorted(one.glob("*/*.opus")):
        if (other / path.relative_to(one)).is_file():
            waves = load_waveform(str(path)), load_waveform(str(other / path.relative_to(one)))
            found[path.parent.name].append((correlate(*waves), len(waves[0]) - len(waves[1])))
    return found


def correlate(one: np.ndarray, other: np.ndarray) -> float:
    """Correlate two recordings, (samples,), shifted by 10 ms at most; two silent ones are alike."""
    if not one.any() and not other.any():
        return 1.0
    size = 1 << (len(one) + len(other) - 1).bit_length()
    products = np.fft.irfft(np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size)), size)
    near = np.concatenate([products[: MOST_SHIFT + 1], products[-MOST_SHIFT:]])
    return float(near.max() / (np.linalg.norm(one) * np.linalg.norm(other) + 1e-12))


if __name__ == "__main__":
    main()

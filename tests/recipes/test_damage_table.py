"""Damaged copies of the recordings of a manifest, and a manifest of these."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

from damage_table import WAYS, main


RATE = 16_000


def read(folder: Path) -> tuple[list[dict[str, str]], list[np.ndarray]]:
    with open(folder / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, [soundfile.read(folder / row["audio"])[0] for row in rows]


@pytest.mark.parametrize("way", WAYS)
def test_copies_are_damaged_and_told_as_before(way: str, table: Path, tmp_path: Path) -> None:
    main(["--data", str(table), "--way", way, "--output", str(tmp_path / "damaged")])
    rows, waves = read(tmp_path / "damaged")
    with open(table, newline="") as file:
        before = list(csv.DictReader(file))
    assert [(row["source"], row["group"]) for row in rows] == [(row["source"], row["group"]) for row in before]
    for old, row, wave in zip(before, rows, waves, strict=True):
        whole = soundfile.read(table.parent / old["audio"])[0]
        assert wave.shape == whole.shape and np.array_equal(wave, whole) == (row["source"] == "silence")
    absolute = tmp_path / "elsewhere.csv"
    with open(absolute, "w", newline="") as file:
        writer = csv.DictWriter(file, before[0])
        writer.writeheader()
        writer.writerows(row | {"audio": str(table.parent / row["audio"])} for row in before)
    main(["--data", str(absolute), "--way", way, "--output", str(tmp_path / "again")])
    assert all(np.array_equal(one, same) for one, same in zip(waves, read(tmp_path / "again")[1], strict=True))


def test_wrong_inputs_are_told_in_a_line_and_leave_nothing(table: Path, tmp_path: Path, capsys) -> None:
    (table.parent / "empty.csv").write_text("audio,source\n")
    (table.parent / "other.csv").write_text("file\n0.wav\n")
    (table.parent / "missing.csv").write_text("audio\n0.wav\nnone.wav\n")
    (table.parent / "short.csv").write_text("source,audio\nrain\n")
    (tmp_path / "there").mkdir()
    for data, output, message in (
        ("empty.csv", "out", "expected a manifest with a column `audio` and a row or more"),
        ("other.csv", "out", "expected a manifest with a column `audio`"),
        ("missing.csv", "out", "1 recordings are missing, the first is none.wav"),
        ("short.csv", "out", "expected a manifest with a column `audio`"),
        ("train.csv", "there", "there is there already: remove it, or name another --output"),
    ):
        with pytest.raises(SystemExit):
            main(["--data", str(table.parent / data), "--way", "quiet", "--output", str(tmp_path / output)])
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "out").exists()

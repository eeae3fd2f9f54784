"""What a teacher can teach is counted from what it hears, and from nothing else."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import teacher_bounds
from everyday_grammar import Grammar

from training_mac.objectives.teacher_targets import TeacherTargets


GRAMMAR = Grammar()
HEARD = {"dog": (1, 0, 0), "rain": (0, 1, 0), "siren": (0, 0, 1), "dog while rain": (1, 0.9, 0), "lost": (1, 1, 1)}
CLASSES = ("Dog", "Rain", "Horse")  # the last one has no kind


def write(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def bounds(tmp_path: Path, monkeypatch, capsys):
    """Runs the script on recordings of a level each, by which the teacher knows what they are; gives its lines."""
    levels = {name: 0.05 * (number + 1) for number, name in enumerate(HEARD)}
    for name, level in levels.items():
        soundfile.write(tmp_path / f"{name}.wav", np.full(16_000, level), 16_000, subtype="FLOAT")

    def load(path: Path, classes: bool = False):
        def hear(wave: np.ndarray) -> np.ndarray:
            name = min(levels, key=lambda one: abs(levels[one] - np.median(wave)))
            scores = np.array([[0.1, 0.9, 0.95]]) if name == "lost" else np.array([[0.9, 0.1, 0.05]])
            return scores if classes else np.array([HEARD[name]], np.float16)

        return hear

    monkeypatch.setattr(teacher_bounds, "load_teacher", load)
    targets = TeacherTargets(GRAMMAR.tags)
    for kind in ("dog", "rain", "siren"):
        for number in range(5):
            embedding = torch.tensor([HEARD[kind]]).float() + 0.01 * number
            targets.add(f"{kind}-{number}.flac", embedding, [(0.0, 0.96, GRAMMAR.tags_of(kind))], [kind])
    (tmp_path / "scenes").mkdir()
    targets.save(tmp_path / "scenes" / "targets.safetensors")
    write(tmp_path / "classes.csv", [{"display_name": name} for name in CLASSES])
    write(tmp_path / "left_out.csv", [{"audio": str(tmp_path / f"{name}.wav"), "source": "some animal"}
                                      for name in ("lost", "dog")])  # fmt: skip

    def run(fold5: dict[str, str], pairs: dict[str, str]) -> list[str]:
        for name, rows in (("validation", fold5), ("pairs", pairs)):
            table = [{"audio": str(tmp_path / f"{file}.wav"), "source": source} for file, source in rows.items()]
            write(tmp_path / f"{name}.csv", table)
        files = ["--classes", str(tmp_path / "classes.csv"), "--teacher", "yamnet.tflite"]
        teacher_bounds.main([str(tmp_path / "scenes"), *files, "--everyday", str(tmp_path), "--esc50", str(tmp_path)])
        return capsys.readouterr().out.splitlines()

    return run


def test_what_it_hears_is_counted(bounds) -> None:
    fold5 = {"dog": "dog", "rain": "rain", "siren": "rain", "lost": "cat"}
    lines = bounds(fold5, {"dog while rain": "dog while rain", "dog": "dog followed by rain"})
    assert lines[:2] == ["fold 5, the right kind first: 50.0 %", "two at once, both first: 100.0 %"]


def test_what_has_no_kind_is_found_unknown(bounds) -> None:
    pairs = {"siren": "dog while rain"}
    assert bounds({"dog": "dog", "rain": "rain"}, pairs)[1:] == [
        "two at once, both first: 0.0 %", "never learnt, called unknown where 5 % of fold 5 are: 50.0 %",
    ]  # fmt: skip
    assert bounds({"lost": "dog"}, pairs)[2].endswith(": 0.0 %"), "fold 5 sets what counts as unknown"


def test_a_missing_table_is_told(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        teacher_bounds.main(["x", "--teacher", "y", "--classes", "c", "--everyday", str(tmp_path), "--esc50", "e"])
    assert "e/validation.csv" in capsys.readouterr().err

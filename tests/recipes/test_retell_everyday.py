"""Scenes are told in general where other recordings do not tell what they are."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
import retell_everyday
from everyday_grammar import Grammar

from training_mac.objectives.teacher_targets import TeacherTargets


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Four scenes of each kind; in the first one of all a dog sounds like a siren."""
    grammar, rng = Grammar(), torch.Generator().manual_seed(0)
    targets, rows = TeacherTargets(grammar.tags), []
    kinds = [name for name in grammar.kinds if name not in grammar.general]
    looks = torch.randn(len(kinds), 32, generator=rng)
    for number in range(4 * len(kinds)):
        kind = kinds[number % len(kinds)] if number else "dog"
        looked = "siren" if number == 0 else kind
        embeddings = looks[kinds.index(looked)].expand(2, -1) + 0.1 * torch.randn(2, 32, generator=rng)
        name = f"s-{number}.flac"
        targets.add(name, embeddings, [(0.0, 1.9, grammar.tags_of(kind))], [f"take-{number}"])
        row = {"audio": name, "caption_1": f"{kind} as it was", "relation": "single"}
        rows.append(row | {"events": json.dumps([(kind, 0.0, 1.9)])})
    (tmp_path / "s").mkdir()
    targets.save(tmp_path / "s" / "targets.safetensors")
    write(tmp_path / "s" / "scenes.csv", rows)
    return tmp_path / "s"


def write(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_what_nobody_could_tell_is_told_in_general(scenes: Path, capsys) -> None:
    retell_everyday.main([str(scenes)])
    grammar, rows = Grammar(), read(scenes / "retold.csv")
    assert rows[0]["caption_1"] in {clause for clause, _ in grammar.kinds["animal"].wording}
    same = sum(before == after for before, after in zip(read(scenes / "scenes.csv"), rows, strict=True))
    assert same >= 0.95 * len(rows)
    assert f"{len(rows) - same} of {len(rows)} scenes are told in more general terms" in capsys.readouterr().out


def test_a_scene_without_its_events_is_refused(scenes: Path, capsys) -> None:
    rows = read(scenes / "scenes.csv")
    write(scenes / "scenes.csv", [{"audio": row["audio"], "caption_1": "a dog"} for row in rows])
    with pytest.raises(SystemExit):
        retell_everyday.main([str(scenes)])
    assert "s-0.flac does not say which recordings it is of, and when: mix it anew" in capsys.readouterr().err


def test_a_sound_of_which_nothing_is_told_keeps_its_name() -> None:
    grammar = Grammar()
    targets = TeacherTargets(grammar.tags)
    targets.add("s.flac", torch.zeros(1, 4), [(0.0, 1.0, ["dog"])], ["take"])
    teller = retell_everyday.Teller(targets, {"s.flac": torch.full((1, len(grammar.tags)), -9.0)}, grammar)
    assert teller.name("s.flac", "dog", 1.0, 1.2) == "dog"  # a moment that is in no stretch
    row = {"audio": "s.flac", "caption_1": "x", "relation": "single", "events": '[["dog", 0.0, 1.0]]'}
    assert teller.retell(row, np.random.default_rng(0)) == row  # all kinds are as unlikely

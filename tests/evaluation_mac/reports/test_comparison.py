"""`mac-eval compare`: paired differences on the recordings that all results have."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from evaluation_mac.cli import main
from evaluation_mac.metrics.paired import paired_difference


def write(folder: Path, scores: list, captions: str) -> str:
    folder.mkdir()
    rows = [{"audio": f"{n}.wav", "caption": captions, "cider_d": score} for n, score in enumerate(scores)]
    with open(folder / "clips.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(folder)


def test_results_are_compared_clip_by_clip(tmp_path, capsys) -> None:
    first = write(tmp_path / "a", [0.1, 0.2, 0.3, 0.4, ""], "a dog")
    second = write(tmp_path / "b", [0.3, 0.4, 0.5, 0.6, 0.9, 1.0], "a <cat>")
    assert main(["compare", first, second, "--output", str(tmp_path / "out")]) == 0
    _, row = json.loads((tmp_path / "out/compare.json").read_text())
    assert row["clips"] == 4 and row["difference"] == pytest.approx(0.2)
    assert row["low"] == pytest.approx(0.2) == row["high"]
    assert "| cider_d | b | 0.54 | 0.2 |" in capsys.readouterr().out
    page = (tmp_path / "out/index.html").read_text()
    assert "a &lt;cat&gt;" in page and "data:image/png;base64" in page
    assert "name=viewport" in page and page.count("<details open>") == 1  # the first one shows what the others hold
    assert page.count("<div class=table><table>") == page.count("<table>")  # a wide one scrolls by itself on a phone


def test_what_belongs_to_the_data_is_left_out_and_other_manifests_are_told(tmp_path, capsys) -> None:
    folders = [write(tmp_path / name, [0.1, 0.2], "a dog") for name in "ab"]
    for folder in map(Path, folders):
        lines = (folder / "clips.csv").read_text().splitlines()
        (folder / "clips.csv").write_text(
            "\n".join([f"{lines[0]},reference_length", *(f"{one},7" for one in lines[1:])])
        )
        (folder / "results.json").write_text(json.dumps({"settings": {"manifest_sha256": "same"}}))
    command = ["compare", *folders, "--output", str(tmp_path / "out")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| cider_d | b |" in printed and "reference_length" not in printed and "different" not in printed
    (tmp_path / "b/results.json").write_text(json.dumps({"settings": {"manifest_sha256": "other"}}))
    assert main(command) == 0
    assert "different manifests" in capsys.readouterr().out


def test_many_clips_are_drawn_in_parts(monkeypatch) -> None:
    first, second = np.random.default_rng(0).standard_normal((2, 50))
    whole = paired_difference(first, second)
    monkeypatch.setattr("evaluation_mac.metrics.paired.MOST_NUMBERS", 120)
    parts = paired_difference(first, second)
    assert parts["difference"] == whole["difference"] and parts["low"] == pytest.approx(whole["low"], abs=0.05)
    assert parts["p"] == pytest.approx(whole["p"], abs=0.05)


def test_what_cannot_be_compared_is_told(tmp_path, capsys) -> None:
    first = write(tmp_path / "a", [0.1], "a dog")
    for folders, message in (([first], "two results or more"), ([first, str(tmp_path)], "the results of mac-eval")):
        with pytest.raises(SystemExit) as ended:
            main(["compare", *folders, "--output", str(tmp_path / "out")])
        assert ended.value.code == 2 and message in capsys.readouterr().err


def test_chance_and_certainty() -> None:
    noise = np.random.default_rng(0).standard_normal(200)
    assert paired_difference(noise, noise)["p"] == 1
    assert paired_difference(noise, noise + 0.1)["p"] == pytest.approx(1 / 2001)
    with pytest.raises(ValueError, match="there is none"):
        paired_difference(np.array([np.nan]), np.array([1.0]))

"""The shipped example sounds are real recordings with their authors named, small, and in several formats."""

import csv
import importlib.util
from pathlib import Path

import pytest
import soundfile


FOLDER = Path(__file__).parents[1] / "examples"
SPEC = importlib.util.spec_from_file_location("pick_examples", FOLDER / "pick_examples.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)
SOUNDS = {".wav", ".flac", ".ogg", ".opus", ".mp3"}

with open(FOLDER / "attribution.csv", newline="") as file:
    ROWS = list(csv.DictReader(file))


def test_every_sound_has_its_author_named():
    shipped = [path for path in FOLDER.iterdir() if path.suffix in SOUNDS]
    assert {path.name for path in shipped} == {row["file"] for row in ROWS}
    assert [row["kind"] for row in ROWS] == list(script.KINDS)
    assert all(row["author"] and row["url"] and script.is_free(row) for row in ROWS)
    assert {path.suffix for path in shipped} == SOUNDS
    assert sum(path.stat().st_size for path in shipped) < 1_500_000


def test_every_sound_has_captions_to_measure_with():
    with open(FOLDER / "captions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["audio"] for row in rows] == [row["file"] for row in ROWS]
    assert all(row["source"] and row["caption_1"] and row["caption_2"] for row in rows)


@pytest.mark.parametrize("name", [row["file"] for row in ROWS])
def test_every_sound_can_be_heard(name):
    samples, rate = soundfile.read(FOLDER / name)
    assert rate == 16_000 and samples.ndim == 1
    assert 1 <= len(samples) / rate <= 10.24
    assert 0.01 < abs(samples).max() < 1.5  # a lossy format overshoots where the recording was at its limit


@pytest.fixture
def collections(tmp_path):
    """Two collections whose first rows break one clause of the rule each, and then one row of every kind, twice."""
    esc50, everyday = tmp_path / "esc50", tmp_path / "everyday"
    good = {"fold": "5", "hq": "1", "licence": "CC-BY"}
    rows = [{**good, "target": "0", **wrong} for wrong in ({"fold": "1"}, {"hq": "0"}, {"licence": "CC-BY-NC"})]
    rows += [{**good, "target": str(target)} for target in (3, 12, 25, 39, 40, 1, 11)]
    write_manifest(esc50, [{"category": f"class_{row['target']}", **row} for row in rows])
    good = {"fold": "validation", "synthetic": "", "seconds": "2", "licence": "CC0", "kind": "speech"}
    wrongs = ({"fold": "train"}, {"synthetic": "tts"}, {"seconds": "0.9"}, {"licence": "Apache-2.0"})
    rows = [{**good, **wrong} for wrong in wrongs]
    write_manifest(everyday, rows + [{**good, "kind": kind} for kind in ("music", "speech", "singing", "speech")])
    return esc50, everyday


def write_manifest(folder, rows):
    folder.mkdir()
    (folder / "hq").mkdir()
    columns = ["file", "title", "author", "url", *rows[0]]
    with open(folder / "manifest.csv", "w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="someone")
        table.writeheader()
        table.writerows({"file": f"{number}.wav", **row} for number, row in enumerate(rows))
    for number in range(len(rows)):
        for place in (folder, folder / "hq"):
            soundfile.write(place / f"{number}.wav", [0.1] * 16_000, 16_000)


def test_the_first_recording_that_fits_is_taken(collections, tmp_path):
    picked = {name: row["file"] for name, (_, row) in script.pick(*collections).items()}
    files = ["3.wav", "4.wav", "5.wav", "6.wav", "7.wav", "5.wav", "6.wav", "4.wav"]
    assert picked == dict(zip(script.KINDS, files, strict=True))
    script.main(["--esc50", str(collections[0]), "--everyday", str(collections[1]), "--output", str(tmp_path / "out")])
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"attribution.csv", "class_3.flac", "class_40.opus", "speech.flac", "music.mp3"} < written

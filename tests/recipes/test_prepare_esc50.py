"""ESC-50 as it is published becomes manifests, of the recordings that anybody may use."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile


ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("prepare_esc50", ROOT / "recipes" / "prepare_esc50.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)

LICENSE = """\
# ESC-50: Dataset for Environmental Sound Classification

101 - Dog:
- [1-100032-A.ogg]: clip derived from bark.wav (http://www.freesound.org/people/nfrae/sounds/100032/) by nfrae [CC0]
- [5-9032-Ad.ogg]:  clip derived from Dog (a bark) 2.wav (http://www.freesound.org/people/T/sounds/9032/) by Mr T [CC0]

201 - Rain:
- [4-160999-A.ogg]: clip derived from Rain .wav (http://www.freesound.org/people/jmb/sounds/160999/) by jmb [CC-BY]
- [5-181766-A.ogg]: clip derived from Rain [soft].wav (http://www.freesound.org/people/a/sounds/181766/) by a b [CC-BY]
- [2-1-A.ogg]: clip derived from [Can[Two]](http://www.freesound.org/people/alex/sounds/1/) by alex [CC-BY-NC]
- [3-2-A.ogg]: clip derived from rain.wav (http://www.freesound.org/people/b/sounds/2/) by b [CC-Sampling+]
"""
FILES = [
    "1-100032-A-0.wav",
    "5-9032-A-0.wav",
    "4-160999-A-10.wav",
    "5-181766-A-10.wav",
    "2-1-A-10.wav",
    "3-2-A-10.wav",
]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The folder of ESC-50's repository, with six recordings."""
    folder = tmp_path / "ESC-50"
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    (folder / "LICENSE").write_text(LICENSE)
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for index, name in enumerate(FILES):
        fold, source, take, target = name.removesuffix(".wav").split("-")
        category = "dog" if target == "0" else "rain"
        rows.append(f"{name},{fold},{target},{category},True,{source},{take}")
        noise = np.random.default_rng(index).standard_normal(22_050) * 0.1
        soundfile.write(folder / "audio" / name, noise, 44_100)
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return folder


def prepare(folder: Path, *options: str) -> dict[str, list[dict[str, str]]]:
    output = folder.parent / "out"
    script.main(["--esc50", str(folder), "--output", str(output), *options])
    tables = {}
    for table in ("train", "validation", "silence", "hiss", "noise", "pairs", "attribution", "validation-phrases"):
        with open(output / f"{table}.csv", encoding="utf-8", newline="") as file:
            tables[table] = list(csv.DictReader(file))
    return tables


def names(rows: list[dict[str, str]]) -> list[str]:
    assert all(Path(row["audio"]).is_file() for row in rows)
    return [Path(row["audio"]).name for row in rows if Path(row["audio"]).suffix == ".wav"]


def test_the_published_folder_gives_what_the_checkpoint_learnt_from(published: Path) -> None:
    tables = prepare(published)
    assert names(tables["train"]) == ["1-100032-A-0.wav"]
    assert names(tables["validation"]) == ["5-9032-A-0.wav", "5-181766-A-10.wav"]
    for table, source in (("train", "dog"), ("silence", "silence"), ("hiss", "noise")):
        assert {row["source"] for row in tables[table]} == {source}
    assert tables["validation"][1]["caption_1"] and tables["validation"][1]["source"] == "rain"
    spoken, row = tables["validation-phrases"][1], tables["validation"][1]
    assert spoken["caption_1"] == row["phrase_1"] != row["caption_1"] and spoken["audio"] == row["audio"]
    assert len(tables["pairs"]) == 2
    assert {row["source"] for row in tables["noise"]} == {"noise"}
    for row in tables["noise"]:
        samples, rate = soundfile.read(row["audio"])
        assert 1 <= len(samples) / rate <= 10 and -31 < 20 * np.log10(samples.std()) < -7
    assert tables["attribution"] == [
        {
            "file": "1-100032-A-0.wav",
            "fold": "1",
            "title": "bark.wav",
            "author": "nfrae",
            "url": "http://www.freesound.org/people/nfrae/sounds/100032/",
            "licence": "CC0",
        }
    ]


def test_a_fold_more_is_asked_for(published: Path) -> None:
    tables = prepare(published, "--folds", "1", "2", "3", "4")
    assert names(tables["train"]) == ["1-100032-A-0.wav", "4-160999-A-10.wav"]
    assert [(row["author"], row["licence"]) for row in tables["attribution"]] == [("nfrae", "CC0"), ("jmb", "CC-BY")]


def test_titles_with_brackets_are_credited(published: Path) -> None:
    credits = {one["file"]: (one["title"], one["author"], one["licence"]) for one in script.read_published(published)}
    assert credits["5-9032-A-0.wav"] == ("Dog (a bark) 2.wav", "Mr T", "CC0")
    assert credits["5-181766-A-10.wav"] == ("Rain [soft].wav", "a b", "CC-BY")
    assert [licence for *_, licence in credits.values()][-2:] == ["CC-BY-NC", "CC-Sampling+"]


def test_a_table_of_ones_own(published: Path) -> None:
    recordings = script.read_published(published)
    with open(published / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(recordings[0]))
        writer.writeheader()
        writer.writerows(recordings)
    expected = prepare(published)
    (published / "meta" / "esc50.csv").unlink()
    (published / "audio").rename(published / "sounds")
    tables = prepare(published, "--audio", "sounds")
    assert tables["attribution"] == expected["attribution"]
    assert names(tables["validation"]) == ["5-9032-A-0.wav", "5-181766-A-10.wav"]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("meta/esc50.csv", "neither meta/esc50.csv nor manifest.csv"),
        ("LICENSE", "no LICENSE; expected ESC-50's"),
        ("audio/5-9032-A-0.wav", "1 recordings are missing, the first is 5-9032-A-0.wav"),
    ],
)
def test_what_is_missing_is_named(published: Path, capsys, gone: str, message: str) -> None:
    (published / gone).unlink()
    with pytest.raises(SystemExit):
        prepare(published)
    assert message in capsys.readouterr().err and not (published.parent / "out").exists()


def test_a_recording_without_credits_is_named(published: Path) -> None:
    (published / "LICENSE").write_text("\n".join(line for line in LICENSE.splitlines() if "4-160999" not in line))
    with pytest.raises(ValueError, match=r"LICENSE: no line for 4-160999-A-10.wav"):
        script.read_published(published)

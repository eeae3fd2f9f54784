"""Two folders of recordings become manifests, and scenes with what a teacher hears in them."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import mix_everyday
import prepare_everyday
from everyday_grammar import Grammar

from evaluation_mac.metrics.everyday_naming import NAMING as EVERYDAY
from training_mac.objectives.teacher_targets import TeacherTargets
from training_mac.recipe.file import load_stages


RATE = 16_000
SOUNDS = [  # file, fold, labels, kind, synthetic, teacher_agree
    ("man.flac", "train", "Speech;Male speech, man speaking", "speech", "", "1"),
    ("piano.flac", "train", "Music;Musical instrument;Piano", "instrument", "midi", "0"),
    ("doubt.flac", "train", "Rain", "nature", "", "0"),
    ("woman.flac", "validation", "Speech;Female speech, woman speaking", "speech", "", "1"),
    ("drum.flac", "validation", "Drum", "instrument", "", "1"),
    ("bells.flac", "validation", "Bell", "bell", "", "1"),
    ("over.flac", "validation", "Speech;Piano", "speech+music", "mix", "1"),
    ("horse.flac", "train", "Horse;Animal", "animal", "", "1"),
    ("wasp.flac", "train", "Bee, wasp, etc.;Insect", "animal", "", "1"),
]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """ESC-50 with a table of its own, and the everyday sounds."""
    monkeypatch.setattr(prepare_everyday, "MINUTES", 2)
    monkeypatch.setattr(prepare_everyday, "PLAIN_TRAIN", 1)
    esc50, everyday = tmp_path / "esc50", tmp_path / "everyday"
    (esc50 / "audio").mkdir(parents=True)
    everyday.mkdir()
    credits = {"title": "t", "author": "a", "url": "u", "licence": "CC0"}
    recordings = [("1-100-A-0.flac", "1", "dog"), ("5-200-A-10.flac", "5", "rain")]
    rows = [{"file": file, "fold": fold, "category": category, **credits} for file, fold, category in recordings]
    write(esc50 / "manifest.csv", rows)
    names = ("file", "fold", "labels", "kind", "synthetic", "teacher_agree")
    write(
        everyday / "manifest.csv", [dict(zip(names, row, strict=True)) | credits | {"group": row[0]} for row in SOUNDS]
    )
    rng = np.random.default_rng(0)
    for path in [esc50 / "audio" / row[0] for row in recordings] + [everyday / row[0] for row in SOUNDS]:
        soundfile.write(path, 0.1 * rng.standard_normal(2 * RATE), RATE)
    return esc50, everyday


def write(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def prepared(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    prepare_everyday.main(
        ["--esc50", str(folders[0]), "--everyday", str(folders[1]), "--output", str(tmp_path / "out")]
    )
    return tmp_path / "out"


def sources(path: Path) -> dict[str, str]:
    return {Path(row["audio"]).name: row["source"] for row in read(path)}


def test_every_recording_goes_where_it_belongs(prepared: Path) -> None:
    made = {"silence-0.flac": "silence", "noise-0.flac": "noise", "tone-0.flac": "tone"}
    groups = {row["source"]: row["group"] for row in read(prepared / "train.csv")}
    assert (groups["dog"], groups["man"]) == ("esc50:100", "man.flac")  # clips of one source are in one group
    assert sources(prepared / "train.csv") == {
        "1-100-A-0.flac": "dog",
        "man.flac": "man",
        "piano.flac": "piano",
        **made,
    }
    assert [row["file"] for row in read(prepared / "attribution.csv")] == ["1-100-A-0.flac", "man.flac", "piano.flac"]
    validation = {"woman.flac": "speech", "drum.flac": "music", "bells.flac": "bell"}
    assert sources(prepared / "validation.csv") == validation
    assert sources(prepared / "voices.csv") == {"woman.flac": "woman"}
    assert sources(prepared / "over.csv") == {"over.flac": "speech while music"}
    assert sources(prepared / "left_out.csv") == {
        "horse.flac": "some animal",
        "wasp.flac": "some animal or insects",
    }


def test_what_is_measured_by_can_be_scored_and_its_references_are_right(prepared: Path) -> None:
    for table in ("validation", "voices", "over", "left_out", "minutes", "plain", "signals"):
        for row in read(prepared / f"{table}.csv"):
            captions = [row[name] for name in row if name.startswith("caption") and row[name]]
            assert EVERYDAY.is_scored(row["source"]) and captions
            assert all(EVERYDAY.names(caption, row["source"]) for caption in captions), (table, captions)
    minute = read(prepared / "minutes.csv")[0]
    assert soundfile.info(minute["audio"]).duration == 60
    assert len(set(minute["source"].split(" then "))) == 4


def test_a_missing_recording_is_named(folders: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    (folders[1] / "drum.flac").unlink()
    with pytest.raises(SystemExit):
        prepare_everyday.main(["--esc50", str(folders[0]), "--everyday", str(folders[1]), "--output", str(tmp_path)])
    assert "1 recordings are missing, the first is drum.flac" in capsys.readouterr().err


def test_scenes_carry_what_is_heard_when(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mix_everyday, "load_teacher", lambda path: lambda wave: np.zeros((-(-len(wave) // 15_360), 4)))
    monkeypatch.setattr(mix_everyday, "PART", 10)
    arguments = ["--data", str(prepared / "train.csv"), "--teacher", "none", "--scenes", "20", "--output"]
    mix_everyday.main([*arguments, str(tmp_path / "scenes")])
    targets, grammar = TeacherTargets.load(tmp_path / "scenes" / "targets.safetensors"), Grammar()
    rows = read(tmp_path / "scenes" / "scenes.csv")
    assert all(set(groups) <= {row["group"] for row in read(prepared / "train.csv")} for groups in targets.groups)
    assert all(targets.groups) and targets.tags == grammar.tags and targets.files == [row["audio"] for row in rows]
    told = {"animal": "animal", "man": "speech", "piano": "music"}
    for row, stretches, embeddings in zip(rows, targets.stretches, targets.embeddings, strict=True):
        seconds = soundfile.info(tmp_path / "scenes" / row["audio"]).duration
        assert seconds <= 10 and len(embeddings) == -(-round(seconds * RATE) // 15_360)
        heard = {targets.tags[tag] for first, end, tags in stretches for tag in tags if 0 <= first < end <= seconds}
        for kind, tag in told.items():  # captions and tags say the same
            assert all(EVERYDAY.mentions(row[f"caption_{k}"], tag) == (kind in heard) for k in (1, 2, 3)), row
    before = {path.name: path.read_bytes() for path in (tmp_path / "scenes").glob("*.flac")}
    (tmp_path / "scenes" / "part-10.csv").unlink()  # stopped after the first part
    mix_everyday.main([*arguments, str(tmp_path / "scenes")])
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "scenes").glob("*.flac")}


def test_what_is_made_strange_is_told_in_general(prepared: Path) -> None:
    mixer = mix_everyday.Mixer(read(prepared / "train.csv"), Grammar(), seconds=10, overlaps=0.3, strange=1.0)
    told = {"dog": "animal", "man": "man", "piano": "piano", "silence": "silence"}
    for row in mixer.recordings:
        if row["source"] in told:
            event = mixer.make_event(row, 3 * RATE, np.random.default_rng(0))
            assert event.name == told[row["source"]] and 0 < len(event.wave) <= 3 * RATE
    mixer = mix_everyday.Mixer(read(prepared / "train.csv"), Grammar(), seconds=10, overlaps=0.3, strange=0.0)
    assert mixer.make_event(mixer.recordings[0], RATE, np.random.default_rng(0)).name == "dog"


@pytest.mark.parametrize("share", [0.0, 0.27, 0.6, 1.0])
def test_the_share_of_two_at_once_is_what_was_asked(share: float) -> None:
    shares = mix_everyday.with_overlaps(share)
    assert sum(shares.values()) == pytest.approx(1) and shares["while"] + shares["behind"] == pytest.approx(share)
    assert share == 1 or shares["single"] / shares["followed_by"] == pytest.approx(0.48 / 0.21)


def test_an_impossible_share_is_refused(prepared: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--data", str(prepared / "train.csv"), "--overlaps", "1.5", "--output", str(tmp_path / "scenes")]
    with pytest.raises(SystemExit):
        mix_everyday.main(arguments)
    assert "expected shares from 0 to 1" in capsys.readouterr().err


def test_long_scenes_go_through_many_windows(prepared: Path, tmp_path: Path) -> None:
    rows = read(prepared / "train.csv")
    rows += [{**rows[0], "source": source} for source in ("rain", "siren", "engine")]  # four at a time
    write(tmp_path / "more.csv", rows)
    arguments = ["--data", str(tmp_path / "more.csv"), "--seconds", "40", "--scenes", "8", "--output"]
    mix_everyday.main([*arguments, str(tmp_path / "long")])
    scenes = read(tmp_path / "long" / "scenes.csv")
    seconds = [soundfile.info(tmp_path / "long" / row["audio"]).duration for row in scenes]
    assert max(seconds) > 20 and max(seconds) <= 40
    assert any(" and finally " in row["caption_1"] for row in scenes)
    assert not (tmp_path / "long" / "targets.safetensors").exists()


def test_too_few_kinds_are_refused(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(mix_everyday, "load_teacher", lambda path: lambda wave: np.zeros((1, 4)))
    write(tmp_path / "one.csv", read(prepared / "train.csv")[:1])
    with pytest.raises(SystemExit):
        mix_everyday.main(["--data", str(tmp_path / "one.csv"), "--teacher", "none", "--output", str(tmp_path / "s")])
    assert "Found too few kinds" in capsys.readouterr().err


def test_the_recipe_has_a_unit_for_every_tag() -> None:
    stages = load_stages([str(Path(__file__).parents[2] / "recipes" / "everyday.yaml")])
    assert all(stage.recipe.model["connector_hidden_size"] == len(Grammar().tags) for stage in stages)


def test_what_is_left_out_is_of_no_kind() -> None:
    grammar = Grammar()
    labels = {label for kind in grammar.kinds.values() for label in kind.labels}
    assert len(grammar.left_out) == 20 and not labels & set(grammar.left_out)
    assert {kind for kinds in grammar.left_out.values() for kind in kinds} <= set(grammar.kinds)
    assert grammar.general == {"animal", "machine", "metal", "object", "person"}


def test_no_fact_is_told_twice_in_a_scene(prepared: Path) -> None:
    mixer = mix_everyday.Mixer(read(prepared / "train.csv"), Grammar(), seconds=10, overlaps=0.27, strange=0.12)
    for seed in range(50):
        _, events = mixer.draw(np.random.default_rng(seed))
        assert len({event.name for event in events}) == len(events)

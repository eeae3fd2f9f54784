"""A table gives back the clips that were written."""

from pathlib import Path

import pytest

from processing_mac.dataset_mac import Clip
from training_mac.data.clip_table import BATCH, ClipTable, JoinedClips, write_clips


CLIPS = [
    Clip("a.wav", ("A", "B"), ("an a",), "a", "What?"),
    Clip("b.wav", ("D",), (), None, None),
    Clip("a.wav", ("C",), ("a c", "no c"), "another", "What?"),
    Clip("a.wav", ("E",)),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_clips(((number, clip) for number, clip in enumerate(CLIPS, start=2)), tmp_path / "clips.arrow")
    return tmp_path / "clips.arrow"


def test_clips_come_back(file: Path) -> None:
    table = ClipTable(file, "x.csv, line")
    assert list(table) == CLIPS and len(table) == 4 and table[1:] == CLIPS[1:]
    assert [table.place(index) for index in range(4)] == [f"x.csv, line {number}" for number in (2, 3, 4, 5)]
    assert table.recording(1) == "b.wav" and list(table.texts())[:3] == ["A", "B", "an a"]
    with pytest.raises(IndexError, match="4 of 4 clips"):
        table[4]


def test_rows_of_one_recording_and_prompt_are_one_clip(file: Path) -> None:
    table = ClipTable(file, merged=True)
    first = Clip("a.wav", ("A", "B", "C"), ("an a", "a c", "no c"), "a", "What?")
    assert list(table) == [first, CLIPS[1], CLIPS[3]]
    assert list(table.texts()) == ["A", "B", "an a", "D", "C", "a c", "no c", "E"]


def test_prompts(file: Path, tmp_path: Path) -> None:
    assert ClipTable(file).prompts() == {"What?", None}
    clips = [Clip("a.wav", ("A",), prompt=prompt) for prompt in ("Which?", "What?", "Why?")]
    write_clips(enumerate(clips, start=1), tmp_path / "more.arrow")
    assert len(ClipTable(tmp_path / "more.arrow").prompts()) == 2  # enough to tell that there are more than one


def test_audio_of_a_dataset_is_asked_for_by_its_row(tmp_path: Path) -> None:
    write_clips([(3, Clip(object(), ("A",))), (7, Clip(object(), ("B",)))], tmp_path / "clips.arrow")
    table = ClipTable(tmp_path / "clips.arrow", merged=True, stored=lambda row: f"row {row}")
    assert [clip.audio for clip in table] == ["row 2", "row 6"]


def test_texts_that_hold_a_word_are_found(file: Path) -> None:
    table = ClipTable(file)
    assert (
        table.indices_with("What") == [0, 2] and table.indices_with("no c") == [2] and table.indices_with("D") == [1]
    )


def test_sources_are_joined(file: Path) -> None:
    joined = JoinedClips([ClipTable(file), CLIPS[:1], []])
    assert list(joined) == [*CLIPS, CLIPS[0]] and joined[3:] == [CLIPS[3], CLIPS[0]]
    assert list(joined.recordings) == ["a.wav", "b.wav", "a.wav", "a.wav", "a.wav"]
    assert list(JoinedClips([])) == []


def test_more_rows_than_are_written_at_a_time(tmp_path: Path) -> None:
    write_clips(((row, Clip(f"{row}.wav", (str(row),))) for row in range(BATCH + 1)), tmp_path / "clips.arrow")
    table = ClipTable(tmp_path / "clips.arrow", merged=True)
    assert len(table) == BATCH + 1 and table[BATCH] == Clip(f"{BATCH}.wav", (str(BATCH),))

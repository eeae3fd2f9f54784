"""Every format becomes clips, and every bad row is named."""

import json
from collections import Counter
from pathlib import Path

import pytest

from processing_mac.dataset_mac import Clip, read_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An audio folder with (empty) files."""
    for name in ("Ydog11chars0.wav", "Yrain1chars0.wav", " birds.wav"):
        (tmp_path / name).touch()
    return tmp_path


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_audiocaps_gathers_the_captions_of_a_recording(folder: Path, load_clips) -> None:
    table = write(
        folder / "test.csv",
        "audiocap_id,youtube_id,start_time,caption\n"
        "1,dog11chars0,30,A dog\n2,rain1chars0,0,Rain\n3,dog11chars0,30,Barks\n",
    )
    value = {"format": "audiocaps", "path": table, "prompt": "In AudioCaps style?"}
    assert load_clips(value) == [
        Clip(str(folder / "Ydog11chars0.wav"), ("A dog", "Barks"), prompt="In AudioCaps style?"),
        Clip(str(folder / "Yrain1chars0.wav"), ("Rain",), prompt="In AudioCaps style?"),
    ]


def test_clotho_keeps_names_that_begin_with_a_space(folder: Path, load_clips) -> None:
    table = write(folder / "clotho.csv", "file_name,caption_1,caption_2\n birds.wav,Birds sing.,They do.\n")
    clips = load_clips({"format": "clotho", "path": table, "audio_root": str(folder)})
    assert clips == [Clip(str(folder / " birds.wav"), ("Birds sing.", "They do."))]


def test_openaqa_asks_and_answers(folder: Path, load_clips) -> None:
    rows = [
        {"instruction": "What?", "input": "", "audio_id": "/x/Ydog11chars0.wav", "dataset": "a", "output": "Dog"},
        {"instruction": "Rain?", "input": "", "audio_id": "Yrain1chars0.wav", "dataset": "b", "output": "Yes"},
        {"instruction": "Rain?", "input": "", "audio_id": "Yrain1chars0.wav", "dataset": "b", "output": "It is"},
    ]  # fmt: skip
    table = write(folder / "openaqa.json", json.dumps(rows, indent=1))
    roots = {"a": str(folder), "b": str(folder)}
    clips = load_clips({"format": "openaqa", "path": table, "audio_root": roots})
    assert [(clip.prompt, clip.captions) for clip in clips] == [
        ("What?", ("Dog",)), ("Rain?", ("Yes",)), ("Rain?", ("It is",)),
    ]  # fmt: skip
    assert clips[0].audio == str(folder / "Ydog11chars0.wav")
    with pytest.raises(ValueError, match=r"openaqa.json, line 9: no folder for dataset 'b' in `audio_root`"):
        load_clips({"format": "openaqa", "path": table, "audio_root": {"a": str(folder)}})


def test_rows_of_one_recording_are_one_clip_with_all_captions(folder: Path, load_clips) -> None:
    table = write(folder / "x.csv", "audio,caption\nYdog11chars0.wav,A\nYrain1chars0.wav,B\nYdog11chars0.wav,C\n")
    assert [clip.captions for clip in load_clips(table)] == [("A", "C"), ("B",)]


def test_missing_recordings_are_named_or_left_out(folder: Path, load_clips) -> None:
    table = write(folder / "x.csv", "audio,caption\ngone.wav,A\nYdog11chars0.wav,B\nlost.wav,C\n")
    with pytest.raises(ValueError, match=r"x.csv, line 2: no recording .*gone.wav\n.*line 4: no recording .*lost.wav"):
        load_clips(table)
    assert [clip.captions for clip in load_clips(table, skip_bad_audio=True)] == [("B",)]


def test_an_audio_folder_that_is_not_there_is_one_error(folder: Path, load_clips) -> None:
    table = write(folder / "x.csv", "audio,caption\n" + "a.wav,A\n" * 9)
    with pytest.raises(ValueError, match=r"x.csv: no audio folder nowhere\.$"):
        load_clips(table, audio_root="nowhere")


@pytest.mark.parametrize(
    ("kind", "name", "recordings"), [("audiocaps", "audiocaps_val", 495), ("clotho", "clotho_train", 3839)]
)
def test_published_tables(kind: str, name: str, recordings: int, tmp_path: Path, load_clips, published) -> None:
    table = published("captions") / f"{name}.csv"
    for _, row in read_rows(table):
        (tmp_path / (row.get("file_name") or f"Y{row['youtube_id']}.wav")).touch()
    clips = load_clips({"format": kind, "path": str(table), "audio_root": str(tmp_path)})
    assert Counter(len(clip.captions) for clip in clips) == {5: recordings}


def test_a_source_says_what_all_its_clips_are(folder: Path, load_clips) -> None:
    table = write(folder / "x.csv", "audio,caption,prompt\nYdog11chars0.wav,A,Who?\nYrain1chars0.wav,B,\n")
    clips = load_clips({"path": table, "prompt": "What?", "scene": "noise"})
    assert [(clip.prompt, clip.scene) for clip in clips] == [("Who?", "noise"), ("What?", "noise")]

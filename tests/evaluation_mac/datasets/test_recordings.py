"""Recordings of AudioCaps are found under the names that people give them."""

from pathlib import Path

import pytest

from evaluation_mac.datasets.recordings import Recordings


ROW = {"audiocap_id": "91139", "youtube_id": "r1nicOVtvkQ", "start_time": "130", "caption": "A woman talks"}


@pytest.mark.parametrize(
    "name",
    [
        "Yr1nicOVtvkQ.wav", "r1nicOVtvkQ.flac", "train/r1nicOVtvkQ_130.wav", "r1nicOVtvkQ_130_140.MP3", "91139.wav",
        "r1nicOVtvkQ_130000_140000.flac", "r1nicOVtvkQ_130.000_140.000.m4a", "r1nicOVtvkQ_000130.wav",
    ],
)  # fmt: skip
def test_a_recording_is_found(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    (tmp_path / "r1nicOVtvkQ.json").touch()
    assert Recordings(tmp_path).add_audio(ROW)["youtube_id"] == str(tmp_path / name)


def test_a_recording_that_is_not_there_tells_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "r1nicOVtvkQ_140.wav").touch()
    audio = Recordings(tmp_path).add_audio(ROW)["youtube_id"]
    assert "Yr1nicOVtvkQ.wav (or r1nicOVtvkQ, r1nicOVtvkQ_130, " in audio


def test_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.wav").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/audio").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "data")
    assert Recordings(tmp_path / "data").paths == {"a": str(tmp_path / "data/audio/a.wav")}

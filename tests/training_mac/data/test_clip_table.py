"""A table gives back the clips that went in."""

from processing_mac.dataset_mac import Clip
from training_mac.data.clip_table import ClipTable


def test_clips_come_back() -> None:
    stored = object()
    clips = [
        Clip("a.wav", ("A", "B"), ("an a",), "a", "What?"),
        Clip(stored, ("C",)),
        Clip("b.wav", ("D",), (), None, None),
    ]
    table = ClipTable(clips)
    assert list(table) == clips and len(table) == 3 and table[1:] == clips[1:]
    assert list(table.recordings) == ["a.wav", stored, "b.wav"] and table.recordings[1] is stored
    assert len(ClipTable([])) == 0

"""Lists of any length are read in blocks, with the lines of their objects."""

import json
from pathlib import Path

import pytest

from training_mac.data import json_list
from training_mac.data.json_list import read_json_list


def write(folder: Path, text: str) -> Path:
    (folder / "x.json").write_text(text, encoding="utf-8")
    return folder / "x.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n{"a" 2}]', "line 2: not valid JSON"),
        ('[{"a": 1},\n\n7]', "line 3: expected an object; got '7'"),
        ('[{"a": 1}\n{"a": 2}]', "line 2: expected a list"),
        ('{"a": 1}', "line 1: expected a list"),
        ('[{"a": 1},\n', "line 2: not valid JSON"),
    ],
)
def test_a_bad_json_list_is_named_by_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_json_list(write(tmp_path, text)))


def test_json_lists_are_read_with_their_lines(tmp_path: Path) -> None:
    assert list(read_json_list(write(tmp_path, "[ ]\n"))) == []
    rows = read_json_list(write(tmp_path, '\n[{"a":\n1}, {"a": 2},\n{"a": 3} ]'))
    assert list(rows) == [(2, {"a": 1}), (3, {"a": 2}), (4, {"a": 3})]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50])
def test_blocks_may_end_anywhere(block: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_list, "BLOCK", block)
    rows = [{"text": 'a, "b" and \\ ] } é', "number": 12345.678, "truth": True, "list": [None, {}]}] * 3
    found = list(read_json_list(write(tmp_path, json.dumps(rows, indent=1, ensure_ascii=False))))
    assert [row for _, row in found] == rows and [line for line, _ in found] == [2, 11, 20]


def test_a_mistake_is_told_without_reading_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_list, "BLOCK", 100)
    path = write(tmp_path, '[{"a" 1},' + " " * 10_000 + "]")
    read = []
    monkeypatch.setattr(json_list.JsonText, "read_more", lambda text: read.append(1) or REAL(text))
    with pytest.raises(ValueError, match="line 1: not valid JSON"):
        list(read_json_list(path))
    assert len(read) == 1


REAL = json_list.JsonText.read_more

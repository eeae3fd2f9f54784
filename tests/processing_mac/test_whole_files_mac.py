"""Files are whole or not there, whatever stands under their names."""

import os
from pathlib import Path

import pytest

from processing_mac.whole_files_mac import write_file_whole, write_text_whole


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    write_text_whole(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), write_file_whole(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_link_stays_one_and_leads_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("folder/real")
    (tmp_path / "folder").mkdir()
    for text in ("new", "newer"):
        write_text_whole(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "real").read_text() == text


def test_a_pipe_and_a_folder_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=f"expected a file, .*{name}"):
            write_text_whole(tmp_path / name, "text")
    assert (tmp_path / "pipe").is_fifo()

"""The parts of an index survive stops, damage and full disks, and are written anew when little of them counts."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from serving_mac import index_cli, index_writer, search_cli
from serving_mac.index_folder import IndexFolder
from serving_mac.index_hearing import hear_files
from serving_mac.index_states import StateReader, round_states
from serving_mac.index_writer import IndexWriter


def test_sparse_parts_are_written_anew(monkeypatch, make_index) -> None:
    monkeypatch.setattr(index_writer, "PART_ROWS", 4)
    index = make_index()
    assert index.table["part"].nunique() == 2
    states = index.states(np.arange(7))["0.recurrent_states.0"]
    scores = dict(zip(index.table["audio"], states, strict=True))
    for name in index.table["audio"][:3].unique():
        os.remove(name)
    again = make_index()
    assert len(again.table) == 4 and "part-00000.parquet" not in os.listdir("index")
    for name, state in zip(again.table["audio"], again.states(np.arange(4))["0.recurrent_states.0"], strict=True):
        assert torch.equal(state, scores[name])


def test_a_half_read_file_does_not_count(collection, captioner, heard, monkeypatch, make_index) -> None:
    files = [str(collection / "6.wav")]
    with IndexWriter(Path("index")) as writer:
        reader = StateReader(captioner)
        options = index_cli.build_parser().parse_args([".", "--output", "index", "--precision", "float32"])
        writer.open(index_cli.make_settings(options, reader.weights))
        [(_, first), _] = hear_files(reader, files, 1)
        size, modified = index_writer.version_of(files[0])
        row = {"audio": files[0], "size": size, "modified": modified, "start": 0.0, "end": 10.24}
        writer.append(row | {"caption": "half", "loss": 0.0, "is_last": False}, first.state)
        writer.flush()
    assert len(IndexFolder(Path("index")).table) == 0
    index = make_index()
    assert "6.wav" in heard and len(index.table) == 7 and "half" not in set(index.table["caption"])


def test_a_full_disk_is_told_and_loses_nothing(monkeypatch, capsys, sound, make_index) -> None:
    before = make_index().table
    soundfile.write("7.wav", sound(2, 7), 16_000)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert index_cli.main([".", "--output", "index", "--precision", "float32"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(Path("index").glob("*.part")) and IndexFolder(Path("index")).table.equals(before)
    assert len(make_index().table) == len(before) + 1


def test_damaged_parts_are_refused_and_mended(heard, capsys, make_index) -> None:
    make_index()
    [states] = Path("index").glob("*.safetensors")
    states.write_bytes(states.read_bytes()[:-100])
    with pytest.raises(SystemExit):
        search_cli.main(["index", "rain"])
    assert "part-00000 is damaged" in (told := capsys.readouterr().err) and "run mac-index again" in told
    heard.clear()
    assert len(make_index().table) == 7 and len(heard) == 6
    assert "what it held is heard again" in capsys.readouterr().err
    assert [file.name for file in Path("index").glob("part-*.parquet")] == ["part-00001.parquet"]
    table = Path("index/part-00001.parquet")
    table.write_bytes(table.read_bytes()[:-100])
    heard.clear()
    assert len(make_index().table) == 7 and len(heard) == 6
    assert "set aside as part-00001.*.damaged" in capsys.readouterr().err
    assert {file.suffixes[0] for file in Path("index").glob("*.damaged")} == {".parquet", ".safetensors"}
    Path("index/part-00009.safetensors").write_bytes(b"killed before its table was written")
    make_index()
    assert not Path("index/part-00009.safetensors").exists()


@pytest.mark.parametrize("missing", [True, False])
def test_all_that_a_damaged_part_held_is_heard_again(heard, missing, make_index) -> None:
    make_index()
    states = Path("index/part-00000.safetensors")
    states.unlink() if missing else states.write_bytes(b"damaged")
    heard.clear()

    assert index_cli.main(["1.wav", "--output", "index", "--precision", "float32"]) == 0
    assert len(heard) == 6 and len(IndexFolder(Path("index")).table) == 7


def test_what_a_damaged_part_held_is_known_after_a_stop(heard, monkeypatch, make_index) -> None:
    make_index()
    Path("index/part-00000.safetensors").write_bytes(b"damaged")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index_cli, "hear_files", stop)
        assert index_cli.main(["1.wav", "--output", "index", "--precision", "float32"]) == 130
    heard.clear()
    assert index_cli.main(["1.wav", "--output", "index", "--precision", "float32"]) == 0
    assert len(heard) == 6 and len(IndexFolder(Path("index")).table) == 7


@pytest.mark.parametrize("reads", ["safe_open", "pq.ParquetFile"])
def test_what_cannot_be_read_now_is_not_deleted(reads, monkeypatch, capsys, make_index) -> None:
    before = make_index().table

    def busy(*_, **__):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(f"serving_mac.index_folder.{reads}", busy)
        assert index_cli.main(["1.wav", "--output", "index", "--precision", "float32"]) == 2
    assert "Too many open files" in capsys.readouterr().err
    assert IndexFolder(Path("index")).table.equals(before)


def test_the_number_of_a_part_that_was_taken_out_never_comes_again(collection, sound, make_index) -> None:
    make_index()
    for file in collection.glob("*.wav"):
        file.unlink()
    make_index("--forget")
    soundfile.write("7.wav", sound(2, 7), 16_000)
    assert set(make_index().table["part"]) == {"part-00001"}
    Path("index/next-part.txt").write_text("one")
    with pytest.raises(SystemExit):
        make_index()


def test_numbers_that_float16_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="--precision float32"):
        round_states({"0.recurrent_states.0": torch.tensor([1e6])}, torch.float16)

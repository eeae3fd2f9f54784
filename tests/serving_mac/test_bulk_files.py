"""Shards of captions: whole, continued, of one kind, and anywhere that fsspec reaches."""

import json

import fsspec
import pyarrow.parquet as pq
import pytest

from serving_mac.bulk_files import ShardFolder, is_remote, list_remote, open_remote


def make_record(name: str) -> dict:
    return {"audio": name, "caption": f"of {name}", "segments": [{"start": 0.0, "end": 1.5, "caption": "a bell"}]}


@pytest.fixture(params=["folder", "memory"])
def folder(request, tmp_path) -> str:
    return str(tmp_path / "captions") if request.param == "folder" else f"memory://{tmp_path}/captions"


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("segments", [False, True])
def test_shards_are_continued(kind, segments, folder):
    with ShardFolder(folder, kind, segments, shard_records=2) as shards:
        for name in "abc":
            shards.append(make_record(name))
        shards.fail("bad", "no sound")
    with ShardFolder(folder, kind, segments, shard_records=2) as shards:
        assert shards.done == set("abc")
        shards.append(make_record("d"))
    system, path = fsspec.core.url_to_fs(folder)
    names = sorted(system.glob(f"{path}/part-*"))
    assert [name[-len("part-00000.") - len(kind) :] for name in names] == [f"part-0000{n}.{kind}" for n in range(3)]
    records = []
    for name in names:
        with system.open(name) as file:
            records += pq.read_table(file).to_pylist() if kind == "parquet" else map(json.loads, file)
    fields = ["audio", "caption", "segments"][: 3 if segments else 2]
    assert records == [{field: make_record(name)[field] for field in fields} for name in "abcd"]
    assert system.cat(f"{path}/failed.jsonl") == b""  # the last run had none


def test_what_failed_is_told_and_tried_again(tmp_path):
    with ShardFolder(str(tmp_path), "parquet") as shards:
        shards.fail("bad.wav", "no sound")
        shards.fail("\udcff.wav", "no UTF-8")
        assert shards.can_hold("ä.wav") and not shards.can_hold("\udcff.wav")
    lines = (tmp_path / "failed.jsonl").read_bytes().decode("utf-8", "surrogateescape").splitlines()
    assert [json.loads(line)["audio"] for line in lines] == ["bad.wav", "\udcff.wav"]
    with ShardFolder(str(tmp_path), "jsonl") as shards:
        assert not shards.done
        shards.append(make_record("\udcff.wav"))
    with ShardFolder(str(tmp_path), "jsonl") as shards:
        assert shards.done == {"\udcff.wav"}


def test_other_fields_and_a_second_writer_are_refused(tmp_path):
    with ShardFolder(str(tmp_path), "jsonl", with_segments=True) as shards:
        shards.append(make_record("a"))
        with pytest.raises(ValueError, match="another run writes to it"):
            ShardFolder(str(tmp_path), "jsonl", with_segments=True)
    with pytest.raises(
        ValueError, match=r"part-00000\.jsonl: has the fields audio, caption, segments; expected audio"
    ):
        ShardFolder(str(tmp_path), "jsonl")
    (tmp_path / "part-00000.jsonl").write_bytes(b"{nonsense\n")
    with pytest.raises(ValueError, match=r"part-00000\.jsonl"):
        ShardFolder(str(tmp_path), "jsonl")


def test_what_waits_is_written_after_an_error_and_never_half(tmp_path):
    with pytest.raises(KeyError), ShardFolder(str(tmp_path), "jsonl") as shards:
        shards.append(make_record("a"))
        raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == ["part-00000.jsonl"]


def test_remote_recordings(tmp_path):
    system, root = fsspec.filesystem("memory"), f"memory://{tmp_path}"
    for name in ("b.wav", "a/c.FLAC", "notes.txt"):
        system.pipe_file(f"{tmp_path}/{name}", name.encode())
    assert list_remote(root) == [f"{root}/a/c.FLAC", f"{root}/b.wav"]
    assert list_remote(f"{root}/notes.txt") == [f"{root}/notes.txt"]
    with open_remote(f"{root}/b.wav") as file:
        assert file.read() == b"b.wav"
    with (
        pytest.raises(ValueError, match=r"none\.wav: cannot be read \(no such file\)"),
        open_remote(f"{root}/none.wav"),
    ):
        pass
    with pytest.raises(ValueError, match="nonsense://x"):
        list_remote("nonsense://x")
    assert [is_remote(name) for name in ("s3://a/b", "http://a/b", "file:///a", "a.wav", "/a/b")] == [True] + [
        False
    ] * 4

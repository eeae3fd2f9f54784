"""What `mac-caption --ray` says when it is stopped, or cannot print or write, with a stand-in for Ray."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from processing_mac.cli_mac import main
from serving_mac import bulk_cli


UNNAMED = os.fsdecode(b"bad\xff.wav")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command on two recordings, each of which gets its caption; or `error` stops it after the first."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", UNNAMED):
        Path(name).write_bytes(b"sound")
    ray = SimpleNamespace(shutdown=lambda: None, exceptions=SimpleNamespace(RayError=RuntimeError))
    monkeypatch.setattr(bulk_cli, "load_captioner", lambda *_, **__: None)
    monkeypatch.setattr(bulk_cli, "start_ray", lambda address: ray)

    def run(*options: str, error: BaseException | None = None) -> int:
        def caption(ray, files, *rest):
            for file in files:
                yield file, {"caption": f"of {file}"}
                if error:
                    raise error

        monkeypatch.setattr(bulk_cli, "caption_on_ray", caption)
        return main(["a.wav", UNNAMED, "--ray", *options])

    return run


def test_what_cannot_be_named_in_parquet_is_told_and_counted(run, capsys):
    assert run("--output", "shards") == 1
    told = capsys.readouterr().err
    assert (
        r"mac-caption: 'bad\udcff.wav': its name is no UTF-8, which Parquet cannot hold; take --shards jsonl" in told
    )
    [failed] = Path("shards/failed.jsonl").read_bytes().decode("utf-8", "surrogateescape").splitlines()
    assert json.loads(failed)["audio"] == UNNAMED
    assert run("--output", "lines", "--shards", "jsonl") == 0


@pytest.mark.parametrize("output", [None, "captions.jsonl", "shards"])
def test_control_c_promises_only_what_is_kept(output, run, capsys):
    assert run(*["--output", output] if output else [], error=KeyboardInterrupt()) == 130
    told = capsys.readouterr().err
    assert "mac-caption: stopped." in told and ("the same command goes on" in told) == bool(output)


def test_a_closed_pipe_is_nothing_wrong(run, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert run() == 141
    assert capsys.readouterr().err == "mac-caption: stopped, since nobody reads its output any more\n"


def test_a_full_disk_is_told_with_what_is_kept(run, capsys):
    assert run("--output", "captions.jsonl", error=OSError(28, "No space left on device")) == 2
    told = capsys.readouterr().err
    assert "--output captions.jsonl: cannot be written ([Errno 28] No space" in told and "goes on after them" in told

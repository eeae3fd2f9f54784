"""An index holds what a collection says, grows by what is new, and is kept when a run stops."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from processing_mac.audio_state_mac import AudioState
from processing_mac.long_recordings_mac import caption_windows
from serving_mac import index_cli, search_cli
from serving_mac.index_folder import IndexFolder
from serving_mac.index_hearing import hear_files
from serving_mac.index_states import StateReader
from serving_mac.index_writer import IndexWriter


def test_it_holds_what_the_captioner_says_and_its_states(collection, captioner, make_index) -> None:
    index = make_index()
    table = index.table.sort_values(["audio", "start"], ignore_index=True)
    assert [Path(name).name for name in table["audio"]] == [
        "1.wav",
        "2.wav",
        "3.wav",
        "4.wav",
        "5.wav",
        "6.wav",
        "6.wav",
    ]
    expected = [
        segment for name in sorted(collection.glob("*.wav")) for segment in caption_windows(captioner, str(name))
    ]
    assert table[["start", "end", "caption"]].to_dict("records") == expected
    texts = ["a dog barks", "rain falls on a roof"]
    states = index.states(np.arange(len(index.table))[::-1])  # in any order
    losses = StateReader(captioner).score(states, texts).flip(0)
    for row, (name, caption, loss) in enumerate(index.table[["audio", "caption", "loss"]].itertuples(index=False)):
        if Path(name).name == "6.wav":  # its windows have states of their own
            continue
        state: AudioState = captioner.listen(name)
        torch.testing.assert_close(losses[row], state.score(texts), atol=1e-5, rtol=0)
        assert loss == pytest.approx(float(state.score([caption])[0]), abs=1e-4)


def test_it_grows_by_what_is_new_and_forgets_what_is_gone(collection, heard, sound, capsys, make_index) -> None:
    make_index()
    heard.clear()
    make_index()
    assert heard == []
    soundfile.write("7.wav", sound(2, 7), 16_000)
    soundfile.write("2.wav", sound(4, 9), 16_000)
    os.remove("3.wav")
    Path("4.wav").write_bytes(b"no sound")
    index = make_index(expected=1)
    assert sorted(heard) == ["2.wav", "4.wav", "7.wav"]
    assert {Path(name).name for name in index.table["audio"]} == {"1.wav", "2.wav", "5.wav", "6.wav", "7.wav"}
    assert index.table.set_index(index.table["audio"].map(os.path.basename))["end"]["2.wav"] == 4
    [failed] = map(json.loads, Path("index/failed.jsonl").read_text().splitlines())
    assert failed["audio"] == str(collection / "4.wav") and "4.wav" in failed["error"]
    assert "index: recordings: 5, segments: 6; new: 1, changed: 1, gone: 1, not readable: 1" in capsys.readouterr().err
    heard.clear()
    make_index(expected=1)
    assert heard == ["4.wav"]  # what failed is tried again


def test_an_emptied_folder_is_forgotten_only_on_demand(capsys, make_index) -> None:
    """Where a disk is not mounted the folder is there, but empty: hours of hearing must not be lost by that."""
    for name in ("some", "empty"):
        Path(name).mkdir()
    shutil.copy("1.wav", "some/8.wav")
    before = make_index().table
    Path("some/8.wav").rename("8.moved")
    Path("some/notes.txt").touch()
    for inputs in (["some"], ["1.wav", "some"]):
        with pytest.raises(SystemExit) as error:
            index_cli.main([*inputs, "--output", "index", "--precision", "float32"])
        told = capsys.readouterr().err
        assert error.value.code == 2 and "some: lists no recording now, and the index holds 1 of it" in told
        assert "--forget" in told and IndexFolder(Path("index")).table.equals(before)
    Path("8.moved").rename("some/8.wav")  # mounted again
    assert make_index().table.equals(before)
    os.remove("some/8.wav")
    assert index_cli.main(["some", "--output", "index", "--precision", "float32", "--forget"]) == 0
    assert "gone: 1" in capsys.readouterr().err and len(IndexFolder(Path("index")).table) == 7
    for output in ("index", "other"):
        with pytest.raises(SystemExit):
            index_cli.main(["empty", "--output", output, "--precision", "float32", "--forget"])
        assert "no audio in empty" in capsys.readouterr().err
    assert not Path("other").exists()


def test_what_cannot_be_looked_at_is_not_forgotten(collection, heard, capsys, monkeypatch, make_index) -> None:
    """A network's disk that gives errors says nothing about what it holds."""
    before = make_index().table
    stat = os.stat

    def stale(path, **options):
        if str(path).endswith(".wav"):
            raise OSError(116, "Stale file handle")
        return stat(path, **options)

    heard.clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stale)
        make_index(expected=1)
    told = capsys.readouterr().err
    assert "1.wav: cannot be read (Stale file handle)" in told and "gone: 0, not readable: 6" in told
    assert IndexFolder(Path("index")).table.equals(before) and heard == []


def test_a_stop_loses_nothing_that_was_written(heard, monkeypatch, capsys, make_index) -> None:
    def stop(reader, files, *rest):
        for number, found in enumerate(hear_files(reader, files, *rest)):
            if number == 6:  # in the middle of 6.wav, which has two windows
                raise KeyboardInterrupt
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(index_cli, "hear_files", stop)
        assert index_cli.main([".", "--output", "index", "--precision", "float32"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    kept = {os.path.basename(name) for name in IndexFolder(Path("index")).table["audio"]}
    assert len(make_index().table) == 7 and kept and kept | set(heard) == {f"{number}.wav" for number in range(1, 7)}
    assert kept.isdisjoint(heard)


@pytest.mark.parametrize(("end", "code"), [(RuntimeError("CUDA out of memory\nmore of it"), 2), (signal.SIGTERM, 130)])
def test_what_was_heard_before_an_end_is_kept(collection, end, code, monkeypatch, capsys) -> None:
    def stop(reader, files, *rest):
        for number, found in enumerate(hear_files(reader, files, *rest)):
            if number == 3:
                if isinstance(end, RuntimeError):
                    raise end
                os.kill(os.getpid(), end)
            yield found

    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the signal came through"))
    monkeypatch.setattr(index_cli, "hear_files", stop)
    assert index_cli.main([".", "--output", "index", "--precision", "float32"]) == code
    told = capsys.readouterr().err
    assert "heard so far is kept" in told and "more of it" not in told
    assert ("CUDA out of memory" in told) == (code == 2)
    assert len(IndexFolder(Path("index")).table) == 3
    assert signal.signal(signal.SIGTERM, before) not in (signal.default_int_handler, signal.SIG_DFL)


def test_files_of_others_are_left_alone(capsys, make_index) -> None:
    Path("other").mkdir()
    download = Path("other/mydownload.iso.part")
    download.write_bytes(b"half")
    with pytest.raises(SystemExit):
        index_cli.main([".", "--output", "other"])
    assert "holds something else than an index" in capsys.readouterr().err
    make_index()
    for name in ("mydownload.iso.part", "index.json.part", "part-00009.parquet.part"):
        Path("index", name).write_bytes(b"half")
    make_index()
    assert [file.name for file in Path("index").glob("*.part")] == [download.name] and download.exists()


def test_a_model_that_does_not_exist_leaves_no_folder(captioner, capsys, monkeypatch) -> None:
    def missing(*arguments, **options):
        raise ValueError("no model is named so")

    monkeypatch.setattr(index_cli, "load_captioner", missing)
    with pytest.raises(SystemExit):
        index_cli.main([".", "--output", "new", "--model", "nosuch"])
    assert "no model is named so" in capsys.readouterr().err and not Path("new").exists()
    monkeypatch.setattr(index_cli, "load_captioner", lambda *arguments, **options: captioner)
    with pytest.raises(SystemExit):
        index_cli.main([".", "--output", "new", "--encoder", "nosuch"])
    assert "name the encoder of the captions" in capsys.readouterr().err and not Path("new").exists()


def test_what_is_no_index_or_of_another_model_is_refused(captioner, capsys, make_index) -> None:
    make_index()

    def refused(command, *arguments: str) -> str:
        with pytest.raises(SystemExit) as error:
            command.main(list(arguments))
        assert error.value.code == 2
        return capsys.readouterr().err

    assert "was made with --precision 'float32'; give the same" in refused(index_cli, ".", "--output", "index")
    assert "holds something else than an index" in refused(index_cli, ".", "--output", ".")
    assert "was made without --prompt" in refused(
        index_cli, ".", "--output", "index", "--precision", "float32", "--prompt", "Hm?"
    )
    assert "1.wav: is a file; an index is a folder" in refused(index_cli, ".", "--output", "1.wav")
    assert "is no index" in refused(search_cli, ".", "rain")
    assert "--rerank: expected a whole number of at least 0" in refused(search_cli, "index", "rain", "--rerank", "x")
    assert "--revision: not read" in refused(index_cli, ".", "--output", "index", "--model", ".", "--revision", "main")
    assert "--revision: not read" in refused(search_cli, "index", "rain", "--model", ".", "--revision", "main")
    for option in (["--likelihood", "query"], ["--device", "cpu"]):
        told = refused(search_cli, "index", "rain", "--rerank", "0", *option)
        assert f"{option[0]}: not read, since --rerank 0 loads no model" in told
    for command in ((index_cli, ".", "--output", "index"), (search_cli, "index", "rain")):
        assert "error: --device meta: cannot compute here" in refused(*command, "--device", "meta")
    assert "the query is blank" in refused(search_cli, "index", " ")
    assert "nothing: there is no such file" in refused(index_cli, "nothing", "--output", "index")
    assert "is an address" in refused(index_cli, "https://example.org/a.wav", "--output", "index")
    with IndexWriter(Path("index")):
        assert "another run of this command writes to it" in refused(index_cli, ".", "--output", "index")
    captioner.model.lm_head.weight.data[0, 0] += 1
    for command, *arguments in (
        (index_cli, ".", "--output", "index", "--precision", "float32"),
        (search_cli, "index", "rain"),
    ):
        assert "was made by another model" in refused(command, *arguments)
    Path("index/index.json").write_text("{}")
    assert "no settings of an index" in refused(search_cli, "index", "rain")


def test_a_part_of_another_model_is_refused(captioner, capsys, make_index) -> None:
    make_index()
    shutil.move("index", "other")
    captioner.model.lm_head.weight.data[0, 0] += 1
    make_index()
    for suffix in ("parquet", "safetensors"):
        shutil.copy(f"other/part-00000.{suffix}", f"index/part-00001.{suffix}")
    for command, *arguments in (
        (index_cli, ".", "--output", "index", "--precision", "float32"),
        (search_cli, "index", "rain"),
    ):
        with pytest.raises(SystemExit):
            command.main(arguments)
        assert "part-00001 was heard by another model" in capsys.readouterr().err
    assert Path("index/part-00001.safetensors").exists()


def test_half_the_size_says_nearly_the_same(captioner, make_index) -> None:
    full = make_index()
    shutil.move("index", "full")
    assert index_cli.main([".", "--output", "index"]) == 0
    half, rows, reader = IndexFolder(Path("index")), np.arange(7), StateReader(captioner)
    sizes = [sum(file.stat().st_size for file in Path(name).glob("*.safetensors")) for name in ("index", "full")]
    assert sizes[0] < 0.7 * sizes[1]
    texts = ["a dog barks"]
    full.folder = Path("full")
    torch.testing.assert_close(
        reader.score(half.states(rows), texts), reader.score(full.states(rows), texts), atol=0.05, rtol=0
    )

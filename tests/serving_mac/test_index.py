"""An index holds what a collection says, grows by what is new, survives stops and damage, and answers words."""

import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from processing_mac.audio_state_mac import AudioState
from processing_mac.long_recordings_mac import caption_windows
from serving_mac import index_cli, index_writer, search_cli
from serving_mac.caption_search import CaptionSearch
from serving_mac.index_folder import IndexFolder
from serving_mac.index_hearing import hear_files
from serving_mac.index_states import StateReader, round_states
from serving_mac.index_writer import IndexWriter


@pytest.fixture
def folder(captioner, sounds, monkeypatch, tmp_path) -> Path:
    """The folder of six recordings, and in it `index`; the commands get the tiny model."""
    for module in (index_cli, search_cli):
        monkeypatch.setattr(module, "load_captioner", lambda *_, **__: captioner)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_index(*options: str, expected: int = 0) -> IndexFolder:
    assert index_cli.main([".", "--output", "index", "--precision", "float32", *options]) == expected
    return IndexFolder(Path("index"))


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    """The files that were read."""
    names: list[str] = []

    def hear(reader, files, *rest):
        names.extend(os.path.basename(file) for file in files)
        return hear_files(reader, files, *rest)

    monkeypatch.setattr(index_cli, "hear_files", hear)
    return names


def test_it_holds_what_the_captioner_says_and_its_states(folder, captioner) -> None:
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
    expected = [segment for name in sorted(folder.glob("*.wav")) for segment in caption_windows(captioner, str(name))]
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


def test_it_grows_by_what_is_new_and_forgets_what_is_gone(folder, heard, sound, capsys) -> None:
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
    assert failed["audio"] == str(folder / "4.wav") and "4.wav" in failed["error"]
    assert (
        "5 recordings in 6 segments; 1 are new, 1 had changed, 1 are gone, 1 could not be read"
        in capsys.readouterr().err
    )
    heard.clear()
    make_index(expected=1)
    assert heard == ["4.wav"]  # what failed is tried again


def test_sparse_parts_are_written_anew(folder, monkeypatch) -> None:
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


def test_a_stop_loses_nothing_that_was_written(folder, heard, monkeypatch, capsys) -> None:
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
def test_what_was_heard_before_an_end_is_kept(folder, end, code, monkeypatch, capsys) -> None:
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


def test_a_folder_whose_recordings_are_all_gone_is_taken_out(folder, capsys) -> None:
    Path("some").mkdir()
    Path("empty").mkdir()
    shutil.copy("1.wav", "some/8.wav")
    make_index()
    os.remove("some/8.wav")
    assert index_cli.main(["some", "--output", "index", "--precision", "float32"]) == 0
    assert "1 are gone" in capsys.readouterr().err and len(IndexFolder(Path("index")).table) == 7
    for output in ("index", "other"):
        with pytest.raises(SystemExit):
            index_cli.main(["empty", "--output", output, "--precision", "float32"])
        assert "no audio in empty" in capsys.readouterr().err
    assert not Path("other").exists()


def test_a_half_read_file_does_not_count(folder, captioner, heard, monkeypatch) -> None:
    files = [str(folder / "6.wav")]
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


def test_a_full_disk_is_told_and_loses_nothing(folder, monkeypatch, capsys, sound) -> None:
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


def test_damaged_parts_are_refused_and_mended(folder, heard, capsys) -> None:
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
def test_all_that_a_damaged_part_held_is_heard_again(folder, heard, missing) -> None:
    make_index()
    states = Path("index/part-00000.safetensors")
    states.unlink() if missing else states.write_bytes(b"damaged")
    heard.clear()

    assert index_cli.main(["1.wav", "--output", "index", "--precision", "float32"]) == 0
    assert len(heard) == 6 and len(IndexFolder(Path("index")).table) == 7


def test_what_a_damaged_part_held_is_known_after_a_stop(folder, heard, monkeypatch) -> None:
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
def test_what_cannot_be_read_now_is_not_deleted(folder, reads, monkeypatch, capsys) -> None:
    before = make_index().table

    def busy(*_, **__):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(f"serving_mac.index_folder.{reads}", busy)
        assert index_cli.main(["1.wav", "--output", "index", "--precision", "float32"]) == 2
    assert "Too many open files" in capsys.readouterr().err
    assert IndexFolder(Path("index")).table.equals(before)


def test_files_of_others_are_left_alone(folder, capsys) -> None:
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


def test_what_is_no_index_or_of_another_model_is_refused(folder, captioner, capsys) -> None:
    make_index()

    def refused(command, *arguments: str) -> str:
        with pytest.raises(SystemExit) as error:
            command.main(list(arguments))
        assert error.value.code == 2
        return capsys.readouterr().err

    assert "was made with --precision float32, not float16" in refused(index_cli, ".", "--output", "index")
    assert "holds something else than an index" in refused(index_cli, ".", "--output", ".")
    assert "is no index" in refused(search_cli, ".", "rain")
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


@pytest.fixture
def named(folder, captioner, monkeypatch) -> IndexFolder:
    """An index whose captions are known."""
    hear = StateReader.hear
    said = iter(["rain falls on a roof", "a dog barks", "a dog barks", "a bell rings twice", "", "a bird", "the rain"])

    def say(reader, features, num_beams=None):
        _, losses, states = hear(reader, features, num_beams)
        return [next(said) for _ in losses], losses, states

    monkeypatch.setattr(StateReader, "hear", say)
    return make_index("--batch-size", "1")


def test_words_are_found_by_their_stems(named, captioner, capsys) -> None:
    search = CaptionSearch(named)
    assert [hit.caption for hit in search.find("raining on roofs")] == ["rain falls on a roof", "the rain"]
    assert [hit.caption for hit in search.find("barking", top=1)] == ["a dog barks"]
    first, second = search.find("barking")
    losses = named.table.set_index(["audio", "start"])["loss"]
    # Of one caption the surest comes first.
    assert losses[first.audio, first.start] < losses[second.audio, second.start]
    assert search.find("the thunder") == [] and search.find("on the") == []
    assert search_cli.main(["index", "thunder"]) == 1 and "--encoder compares meanings" in capsys.readouterr().err


def test_the_best_are_ordered_by_likelihood(named, captioner) -> None:
    search = CaptionSearch(named, reader=StateReader(captioner))
    query = "barking dogs and rain"
    plain = CaptionSearch(named).find(query)
    for likelihood in ("captions", "query"):
        hits = search.find(query, likelihood=likelihood)
        found = [hit.log_likelihood for hit in hits]
        assert found == sorted(found, reverse=True) and {hit.audio for hit in hits} == {hit.audio for hit in plain}
    hit = hits[0]
    if Path(hit.audio).name != "6.wav":
        tokens = len(captioner.processor.tokenizer(query)["input_ids"]) + 1
        expected = -tokens * float(captioner.listen(hit.audio).score([query])[0])
        assert hit.log_likelihood == pytest.approx(expected, abs=1e-3)
    some = search.find(query, rerank=2)
    assert [hit.log_likelihood is None for hit in some] == [False, False, True, True]
    assert some[2:] == plain[2:]


class Meanings:
    """An encoder that knows three meanings."""

    def __init__(self, name: str = "meanings"):
        self.asked: list[str] = []
        self.model = SimpleNamespace(state_dict=lambda: {"weight": torch.tensor([float(ord(name[0]))])})

    def embed_text(self, sentences):
        self.asked += sentences
        vectors = np.array([["rain" in text or "wet" in text, "dog" in text, True] for text in sentences], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_vectors_are_kept_and_compared(named, monkeypatch, capsys) -> None:
    encoder = Meanings()
    for module in (index_cli, search_cli):
        monkeypatch.setattr(module, "TextEncoder", lambda name: encoder)
    make_index("--encoder", "meanings")
    assert len(encoder.asked) == 6
    encoder.asked.clear()
    make_index("--encoder", "meanings")
    assert search_cli.main(["index", "something wet", "--rerank", "0", "--json", "--top", "2"]) == 0
    assert encoder.asked == ["something wet"]  # each caption once, and by the encoder that the index names
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {hit["caption"] for hit in hits} == {"rain falls on a roof", "the rain"}
    assert hits[0]["log_likelihood"] is None and hits[0]["query"] == "something wet"
    assert search_cli.main(["index", "something wet", "--words"]) == 1
    encoder.model = Meanings("other").model  # vectors of another are not taken
    assert search_cli.main(["index", "something wet", "--encoder", "other", "--rerank", "0"]) == 0
    assert len(encoder.asked) == 1 + 5 + 1  # the blank caption is never compared
    Path("index/embeddings.parquet").write_bytes(b"")
    with pytest.raises(SystemExit):
        search_cli.main(["index", "something wet"])
    assert "embeddings.parquet: is damaged" in capsys.readouterr().err


def test_the_encoder_of_the_index_goes_on(folder, sound, monkeypatch, capsys) -> None:
    encoder, hear, numbers = Meanings(), StateReader.hear, itertools.count()

    def say(reader, features, num_beams=None):
        _, losses, states = hear(reader, features, num_beams)
        return [f"dog {next(numbers)}" for _ in losses], losses, states

    monkeypatch.setattr(StateReader, "hear", say)
    monkeypatch.setattr(index_cli, "TextEncoder", lambda name: encoder)
    make_index("--encoder", "meanings")
    soundfile.write("7.wav", sound(2, 7), 16_000)
    encoder.asked.clear()
    make_index()
    assert encoder.asked == ["dog 7"]

    def gone(name):
        raise ValueError(f"the encoder {name} cannot be loaded: it is gone")

    monkeypatch.setattr(index_cli, "TextEncoder", gone)
    with pytest.raises(SystemExit):
        make_index()
    assert "the encoder meanings cannot be loaded" in (told := capsys.readouterr().err) and "with --encoder" in told


def test_an_index_that_changes_under_a_search_is_told(named, captioner, capsys, monkeypatch) -> None:
    search = CaptionSearch(named, reader=StateReader(captioner))
    for name in set(named.table["audio"]):
        os.remove(name)
    make_index()
    assert not list(Path("index").glob("part-*"))
    with pytest.raises(ValueError, match="changed meanwhile; search again"):
        search.find("dog")
    monkeypatch.setattr(search_cli, "open_search", lambda _: search)
    with pytest.raises(SystemExit):
        search_cli.main(["index", "dog"])
    assert "index: the index changed meanwhile; search again" in capsys.readouterr().err


def test_the_number_of_a_part_that_was_taken_out_never_comes_again(folder, sound) -> None:
    make_index()
    for file in folder.glob("*.wav"):
        file.unlink()
    make_index()
    soundfile.write("7.wav", sound(2, 7), 16_000)
    assert set(make_index().table["part"]) == {"part-00001"}
    Path("index/next-part.txt").write_text("one")
    with pytest.raises(SystemExit):
        make_index()


def test_a_part_that_vanishes_while_an_index_is_opened_is_told(folder, monkeypatch) -> None:
    make_index()
    files = [Path("index/part-00000.parquet"), Path("index/part-00001.parquet")]
    monkeypatch.setattr("serving_mac.index_folder.part_files", lambda _: files)
    with pytest.raises(ValueError, match="changed meanwhile; search again"):
        IndexFolder(Path("index"))


def test_a_part_of_another_model_is_refused(folder, captioner, capsys) -> None:
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


def test_a_model_that_moved_is_asked_for(named, captioner, capsys, monkeypatch) -> None:
    loaded = []

    def load(name, **_):
        loaded.append(name)
        return captioner

    monkeypatch.setattr(search_cli, "load_captioner", load)
    settings = json.loads(Path("index/index.json").read_text())
    Path("index/index.json").write_text(json.dumps(settings | {"model": "/nowhere/mac-small"}))
    assert search_cli.main(["index", "dog"]) == 0 and loaded == [search_cli.DEFAULT_MODEL]
    captioner.model.lm_head.weight.data[0, 0] += 1
    with pytest.raises(SystemExit):
        search_cli.main(["index", "dog"])
    assert "no longer at /nowhere/mac-small; name its folder with --model" in capsys.readouterr().err


def test_a_search_that_cannot_read_now_is_told(named, capsys, monkeypatch) -> None:
    def busy(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("serving_mac.index_folder.pq.ParquetFile", busy)
    with pytest.raises(SystemExit) as error:
        search_cli.main(["index", "dog"])
    assert error.value.code == 2 and "cannot be searched now" in capsys.readouterr().err


def test_queries_come_from_standard_input(named, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", iter(["rain\n", "\n", "dog\n"]))
    assert search_cli.main(["index", "-"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4 and all(len(line) == 3 and line[0].endswith(".wav") for line in lines)
    assert not any(line[0].startswith("/") for line in lines) and lines[0][1].endswith(" s")


def test_numbers_that_float16_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="--precision float32"):
        round_states({"0.recurrent_states.0": torch.tensor([1e6])}, torch.float16)


def test_half_the_size_says_nearly_the_same(folder, captioner) -> None:
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

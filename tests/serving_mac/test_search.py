"""An index answers words: by the captions, then by how likely they are after what was heard."""

import io
import json
import os
from pathlib import Path

import pytest

from serving_mac import search_cli
from serving_mac.caption_search import CaptionSearch
from serving_mac.index_folder import IndexFolder
from serving_mac.index_states import StateReader


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


def test_an_index_that_changes_under_a_search_is_told(named, captioner, capsys, monkeypatch, make_index) -> None:
    search = CaptionSearch(named, reader=StateReader(captioner))
    for name in set(named.table["audio"]):
        os.remove(name)
    make_index("--forget")
    assert not list(Path("index").glob("part-*"))
    with pytest.raises(ValueError, match="changed meanwhile; search again"):
        search.find("dog")
    monkeypatch.setattr(search_cli, "open_search", lambda _: search)
    with pytest.raises(SystemExit):
        search_cli.main(["index", "dog"])
    assert "index: the index changed meanwhile; search again" in capsys.readouterr().err


def test_a_part_that_vanishes_while_an_index_is_opened_is_told(monkeypatch, make_index) -> None:
    make_index()
    files = [Path("index/part-00000.parquet"), Path("index/part-00001.parquet")]
    monkeypatch.setattr("serving_mac.index_folder.part_files", lambda _: files)
    with pytest.raises(ValueError, match="changed meanwhile; search again"):
        IndexFolder(Path("index"))


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


def test_a_bad_line_does_not_end_the_queries(named, monkeypatch, capsys) -> None:
    lines = b"rain\n \na <|audio|> dog\n\xff\xfe\n  dog \nthunder\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    assert search_cli.main(["index", "-", "--json"]) == 0
    told = capsys.readouterr()
    assert list(dict.fromkeys(json.loads(line)["query"] for line in told.out.splitlines())) == ["rain", "dog"]
    assert "line 3 is left out: 'a <|audio|> dog\\n' holds <|audio|>" in told.err
    assert "line 4 is left out: '\\udcff\\udcfe\\n' is no UTF-8" in told.err
    assert "thunder: nothing was found" in told.err
    for lines in (b"<|audio|>\n", b"\n"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
        with pytest.raises(SystemExit) as error:
            search_cli.main(["index", "-"])
        assert error.value.code == 2 and "no query on standard input could be searched" in capsys.readouterr().err
    for query in ("a <|audio|> dog", "\udcff"):
        with pytest.raises(SystemExit) as error:
            search_cli.main(["index", query])
        assert error.value.code == 2

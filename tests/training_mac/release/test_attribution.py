"""Everybody whose recordings a model learnt from is named beside its card."""

import csv
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from training_mac.release.attribution import write_attribution


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Data of three authors, a model that learnt from one more's, and a folder for the new model."""
    for name, row in {"first": "a.wav,ann,CC-BY", "second": "b.wav,bob,CC0", "base": "c.wav,cem,CC-BY"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "attribution.csv").write_text(f"file,author,licence\n{row}\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "attribution.csv").write_text("file,licence\nd.wav,CC0\n")
    (tmp_path / "model").mkdir()
    return tmp_path


def authors(folder: Path) -> list[tuple[str, str]]:
    with open(folder / "attribution.csv", encoding="utf-8", newline="") as file:
        return [(row["file"], row["author"]) for row in csv.DictReader(file)]


def test_data_of_all_stages(data: Path) -> None:
    stages = [
        {"train_data": str(data / "first" / "train.csv")},
        {"train_data": [str(data / "second" / "train.csv"), {"path": str(data / "more" / "train.csv")}]},
        {"train_data": str(data / "first" / "train.csv")},
    ]
    assert write_attribution(data / "model", stages) == (True, [])
    assert authors(data / "model") == [("a.wav", "ann"), ("b.wav", "bob"), ("d.wav", "")]


def test_the_base_is_credited_and_so_stays(data: Path) -> None:
    stages = [{"base_model": str(data / "base"), "train_data": str(data / "first" / "train.csv")}] * 2
    assert write_attribution(data / "model", stages) == (True, [])
    assert authors(data / "model") == [("c.wav", "cem"), ("a.wav", "ann")]
    again = [{"base_model": str(data / "model"), "train_data": str(data / "first" / "train.csv")}]
    (data / "tuned").mkdir()
    write_attribution(data / "tuned", again)
    assert authors(data / "tuned") == [("c.wav", "cem"), ("a.wav", "ann")]  # each once


def test_data_without_are_named(data: Path) -> None:
    (data / "first" / "attribution.csv").unlink()
    stages = [{"base_model": str(data / "base"), "train_data": str(data / "first" / "train.csv")}]
    assert write_attribution(data / "model", stages) == (True, ["train.csv"])
    del stages[0]["base_model"]
    (data / "other").mkdir()
    assert write_attribution(data / "other", stages) == (False, ["train.csv"])
    assert not list((data / "other").iterdir())


def test_a_base_on_the_hub(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    stages = [{"base_model": "user/base", "train_data": str(data / "first" / "train.csv")}]
    asked = []

    def download(repo_id: str, name: str) -> str:
        asked.append((repo_id, name))
        return str(data / "base" / "attribution.csv")

    monkeypatch.setattr("training_mac.release.attribution.hf_hub_download", download)
    write_attribution(data / "model", stages)
    assert asked == [("user/base", "attribution.csv")] and ("c.wav", "cem") in authors(data / "model")

    def no_network(repo_id: str, name: str) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("training_mac.release.attribution.hf_hub_download", no_network)
    assert write_attribution(data / "model", stages) == (True, [])
    assert "user/base: whether it has attribution.csv is not known" in capsys.readouterr().err


def test_a_list_of_shards(data: Path) -> None:
    shards = [str(data / name / "{000..009}.tar") for name in ("first", "more")]
    stages = [{"train_data": {"path": [*shards, "https://x.org/a.tar"], "format": "webdataset"}}]
    assert write_attribution(data / "model", stages) == (True, ["a.tar"])
    assert authors(data / "model") == [("a.wav", "ann"), ("d.wav", "")]

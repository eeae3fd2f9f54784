"""Vectors of the captions are kept by the index, grow with it, and are compared by the encoder that it names."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from serving_mac import index_cli, search_cli
from serving_mac.index_states import StateReader


class Meanings:
    """An encoder that knows three meanings."""

    def __init__(self, name: str = "meanings"):
        self.asked: list[str] = []
        self.model = SimpleNamespace(state_dict=lambda: {"weight": torch.tensor([float(ord(name[0]))])})

    def embed_text(self, sentences):
        self.asked += sentences
        vectors = np.array([["rain" in text or "wet" in text, "dog" in text, True] for text in sentences], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_vectors_are_kept_and_compared(named, monkeypatch, capsys, make_index) -> None:
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


def test_the_encoder_of_the_index_goes_on(sound, monkeypatch, capsys, make_index) -> None:
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

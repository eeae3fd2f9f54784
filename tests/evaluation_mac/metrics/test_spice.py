"""What goes to SPICE's program and what comes back; the program itself needs 400 MB that no test has."""

import json
from pathlib import Path

import pytest

from evaluation_mac import score_captions


CANDIDATES = ["A dog barks.", "rain falls"]
REFERENCES = [["a dog is barking", "The dog barks!"], ["it rains"]]


@pytest.fixture
def package(monkeypatch, tmp_path):
    """A pycocoevalcap without CoreNLP."""
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    (tmp_path / "spice" / "lib" / "ejml-0.23.jar").touch()
    monkeypatch.setattr("evaluation_mac.metrics.spice.pycocoevalcap_folder", lambda metric: tmp_path)
    monkeypatch.delenv("CORENLP_HOME", raising=False)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """A Java program that answers like SPICE, last clip first; its calls."""
    calls = []

    def run(metric, arguments):
        calls.append(arguments)
        source, target = Path(arguments[4]), Path(arguments[arguments.index("-out") + 1])
        clips = json.loads(source.read_text())
        assert clips == [
            {"image_id": 0, "test": "a dog barks", "refs": ["a dog is barking", "the dog barks"]},
            {"image_id": 1, "test": "rain falls", "refs": ["it rains"]},
        ]
        rows = [{"image_id": clip["image_id"], "scores": {"All": {"f": 0.25 + clip["image_id"]}}} for clip in clips]
        target.write_text(json.dumps(rows[::-1]))

    monkeypatch.setattr("evaluation_mac.metrics.spice.run_java", run)
    return calls


def test_scores_and_spider(package, calls, monkeypatch, tmp_path):
    corenlp = tmp_path / "corenlp"
    corenlp.mkdir()
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (corenlp / name).touch()
    monkeypatch.setenv("CORENLP_HOME", str(corenlp))
    result = score_captions(CANDIDATES, REFERENCES, ["spice", "spider", "cider_d"])
    assert [row["spice"] for row in result["per_caption"]] == [0.25, 1.25]
    assert result["corpus"]["spice"] == 0.75
    for row in (*result["per_caption"], result["corpus"]):
        assert row["spider"] == pytest.approx((row["spice"] + row["cider_d"]) / 2)
    assert len(calls) == 1, "SPICE takes minutes: it runs once for both scores"
    for jar in ("spice-1.0.jar", "ejml-0.23.jar", "stanford-corenlp-3.6.0-models.jar"):
        assert jar in calls[0][2]


def test_without_corenlp(package, calls):
    result = score_captions(CANDIDATES, REFERENCES, ["rouge_l", "spice", "spider"])
    assert set(result["corpus"]) == {"rouge_l"}
    assert set(result["skipped"]) == {"spice", "spider"}
    assert "CoreNLP 3.6.0" in result["skipped"]["spice"] and "CORENLP_HOME" in result["skipped"]["spider"]
    assert not calls

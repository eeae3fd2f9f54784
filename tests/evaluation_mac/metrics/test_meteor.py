"""METEOR's score from the numbers its program prints, and the program itself where it is installed."""

import shutil
from importlib.util import find_spec

import numpy as np
import pytest

from evaluation_mac import score_captions
from evaluation_mac.metrics.meteor import meteor_from_statistics


def test_formula(golden_captions):
    clips = golden_captions["clips"]
    statistics = np.array([clip["meteor_statistics"].split() for clip in clips], dtype=np.float64)
    before = statistics.copy()
    scores = meteor_from_statistics(statistics)
    assert scores.per_caption()[:, 0] == pytest.approx([clip["scores"]["meteor"] for clip in clips], abs=1e-12)
    assert scores.corpus()[0] == pytest.approx(golden_captions["corpus"]["meteor"], abs=1e-12)
    assert (statistics == before).all()


@pytest.mark.skipif(find_spec("pycocoevalcap") is None, reason="needs pycocoevalcap, the extra `metrics`")
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_program(golden_captions):
    clips = golden_captions["clips"]
    candidates, references = [clip["candidate"] for clip in clips], [clip["references"] for clip in clips]
    result = score_captions(candidates, references, ["meteor"])
    expected = [{"meteor": clip["scores"]["meteor"]} for clip in clips]
    assert result["per_caption"] == [pytest.approx(row, abs=1e-12) for row in expected]
    assert result["corpus"]["meteor"] == pytest.approx(golden_captions["corpus"]["meteor"], abs=1e-12)


def test_without_java(monkeypatch, tmp_path):
    monkeypatch.setattr("evaluation_mac.metrics.meteor.pycocoevalcap_folder", lambda metric: tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    skipped = score_captions(["a dog"], [["a dog"]], ["bleu", "meteor"])["skipped"]
    assert skipped == {"meteor": "METEOR needs Java: no command `java` was found"}


def test_a_program_that_fails_is_reported(monkeypatch, tmp_path):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'Exception in thread main: no memory' >&2\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setattr("evaluation_mac.metrics.meteor.pycocoevalcap_folder", lambda metric: tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    skipped = score_captions(["a dog"], [["a dog"]], ["meteor"])["skipped"]["meteor"]
    assert skipped == "METEOR failed, Java's exit status 3: Exception in thread main: no memory"


def test_an_answer_that_is_no_answer_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr("evaluation_mac.metrics.meteor.pycocoevalcap_folder", lambda metric: tmp_path)
    monkeypatch.setattr("evaluation_mac.metrics.meteor.run_java", lambda *arguments: "Error: what?\n")
    assert (
        "answered 1 lines for 2 captions"
        in score_captions(["a", "b"], [["a"], ["b"]], ["meteor"])["skipped"]["meteor"]
    )

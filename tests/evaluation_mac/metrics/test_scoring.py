"""Scores are those of COCO's caption scorer, on captions of our own and on published ones."""

import csv
import json
import subprocess
import sys

import pytest

from evaluation_mac import METRICS, score_captions


NAMES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d")


@pytest.fixture(scope="module")
def clotho(published):
    """1,045 captions of a published model on Clotho's evaluation set, with the scores that its authors published."""
    with open(published("metrics") / "clotho_eval_scored.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    corpus = json.loads((published("metrics") / "clotho_eval_corpus.json").read_text("utf-8"))
    return (
        rows,
        [row["candidate"] for row in rows],
        [[row[f"reference_{i}"] for i in range(1, 6)] for row in rows],
        corpus,
    )


def golden_input(golden_captions):
    clips = golden_captions["clips"]
    return [clip["candidate"] for clip in clips], [clip["references"] for clip in clips]


def test_own_captions(golden_captions):
    result = score_captions(*golden_input(golden_captions))
    assert result["corpus"] == pytest.approx({name: golden_captions["corpus"][name] for name in NAMES}, abs=1e-12)
    for clip, scores in zip(golden_captions["clips"], result["per_caption"], strict=True):
        assert scores == pytest.approx({name: clip["scores"][name] for name in NAMES}, abs=1e-12), clip["candidate"]
    assert result["skipped"] == {}
    assert "intervals" not in result


def test_published_captions(clotho):
    rows, candidates, references, corpus = clotho
    result = score_captions(candidates, references)
    for name in NAMES:
        assert result["corpus"][name] == pytest.approx(corpus[name], abs=1e-12), name
        ours, theirs = [row[name] for row in result["per_caption"]], [float(row[name]) for row in rows]
        assert ours == pytest.approx(theirs, abs=1e-9), name


def test_captions_without_a_word_score_as_in_the_java_tools():
    result = score_captions(["", "!", "a dog"], [["a dog"], [""], ["", "..."]])
    # An empty caption is one empty word to ROUGE-L, so it agrees with an empty reference.
    assert [row["rouge_l"] for row in result["per_caption"]] == [0.0, 1.0, 0.0]
    assert [row["cider_d"] for row in result["per_caption"]] == [0.0, 0.0, 0.0]
    assert max(row["bleu_1"] for row in result["per_caption"]) < 1e-5


def test_of_two_references_as_close_in_length_bleu_takes_the_shorter():
    result = score_captions(["a dog barks loudly"], [["dog barks loudly", "a dog barks very loudly"]], ["bleu"])
    assert result["corpus"]["bleu_1"] == pytest.approx(1.0)


def test_only_the_metrics_asked_for():
    result = score_captions(["a dog barks"], [["a dog is barking"]], ["rouge_l"])
    assert set(result["corpus"]) == set(result["per_caption"][0]) == {"rouge_l"}


def test_statistics():
    result = score_captions(["A dog barks.", "rain"], [["a dog", "the dog barks, a dog"], ["rain"]], ["statistics"])
    assert result["corpus"] == {
        "length": 2.0,
        "reference_length": 8 / 3,
        "vocabulary": 4.0,
        "reference_vocabulary": 5.0,
    }
    assert result["per_caption"][0] == {
        "length": 3.0,
        "reference_length": 3.5,
        "vocabulary": 3.0,
        "reference_vocabulary": 4.0,
    }


@pytest.mark.parametrize("metrics", [["bleu", "cider"], "bleu"])
def test_an_unknown_metric_is_refused(metrics):
    with pytest.raises(ValueError, match="expected a list of names out of bleu, rouge_l"):
        score_captions(["a dog"], [["a dog"]], metrics)


def test_what_cannot_run_takes_nothing_else_down(monkeypatch):
    monkeypatch.setattr("evaluation_mac.metrics.java_program.find_spec", lambda name: None)
    result = score_captions(["a dog barks"], [["a dog is barking"]], METRICS, resamples=10)
    assert set(result["skipped"]) == {"meteor", "spice", "spider", "sentence_similarity"}
    assert "mamba-audio-captioning[metrics]" in result["skipped"]["meteor"]
    assert "sentence_encoder" in result["skipped"]["sentence_similarity"]
    assert set(result["intervals"]) == set(NAMES) < set(result["corpus"])


def test_importing_the_package_does_not_import_torch():
    code = "import sys, evaluation_mac; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

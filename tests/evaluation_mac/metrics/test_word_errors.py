"""Word and character error rates, after Whisper's normalisation."""

import json

import pytest

from evaluation_mac.metrics.word_errors import word_errors
from evaluation_mac.protocols.transcription import evaluate_transcripts
from processing_mac.dataset_mac import Clip


pytest.importorskip("jiwer")


def test_errors_are_counted_over_the_corpus_not_averaged():
    scores = word_errors(["a b c d", "x"], ["a b c d", "y"])
    assert scores.corpus()[0] == pytest.approx(1 / 5)
    assert scores.per_caption()[:, 0].tolist() == [0.0, 1.0]
    assert scores.corpus()[1] == pytest.approx(1 / 8)


def test_added_and_missing_words_count():
    assert word_errors(["the cat sat down now"], ["a cat sat"]).corpus()[0] == pytest.approx(3 / 3)
    assert word_errors([""], ["two words"]).corpus().tolist() == [1.0, 1.0]


def test_both_sides_are_normalised():
    assert (
        word_errors(["Mr. Smith isn't here, um, at 25!"], ["mister smith is not here at twenty five"]).corpus()[0] == 0
    )


def test_spellings_come_from_whispers_table(tmp_path):
    assert word_errors(["colour"], ["color"]).corpus()[0] == 1
    table = tmp_path / "normalizer.json"
    table.write_text(json.dumps({"colour": "color"}))
    assert word_errors(["colour"], ["color"], table).corpus()[0] == 0


def test_a_reference_without_words_is_refused():
    with pytest.raises(ValueError, match=r"reference 1 \('\[noise\]'\) says nothing"):
        word_errors(["a", "b"], ["a", "[noise]"])


def test_an_evaluation_has_intervals_and_a_row_a_clip():
    clips = [Clip(f"{n}.wav", ("red dog",)) for n in range(4)]
    evaluation = evaluate_transcripts(clips, ["red dog", "red", "red dog", "dog"])
    assert evaluation.scores["wer"] == pytest.approx(2 / 8)
    low, high = evaluation.intervals["wer"]
    assert low <= 0.25 <= high
    assert evaluation.clips[1] == {
        "audio": "1.wav", "transcript": "red", "reference": "red dog", "wer": 0.5, "cer": pytest.approx(4 / 7),
    }  # fmt: skip


def test_a_transcript_has_one_reference():
    with pytest.raises(ValueError, match=r"a.wav has 2 captions; a transcript has one reference"):
        evaluate_transcripts([Clip("a.wav", ("red", "dog"))], ["red"])

"""Word and character error rates of transcripts, after Whisper's normalisation of English."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from evaluation_mac.metrics.caption_scores import CaptionScores


def word_errors(
    transcripts: Sequence[str], references: Sequence[str], spellings: str | Path | None = None
) -> CaptionScores:
    """
    WER and CER: substituted, left out and added words (characters) of a whole corpus, by those of its references.

    Both sides are normalised as Whisper's authors do it: case, punctuation, contractions, numbers as digits, and
    British spellings as American ones where their table is given; so "Mr. O'Neill's" and "mister o'neill is" agree.

    Args:
        transcripts: What was written, a recording each.
        references: What was said.
        spellings: Whisper's `normalizer.json`, a table of spellings that comes with its tokenizer; without it
            spellings stay as they are.

    Returns:
        "wer" and "cer", fractions that may pass 1, as a formula of sums over recordings.

    Raises:
        ValueError: jiwer is not installed, or a reference says nothing once it is normalised.
    """
    try:
        import jiwer
    except ImportError as error:
        raise ValueError("wer and cer need jiwer: pip install 'mamba-audio-captioning[metrics]'") from error
    table = json.loads(Path(spellings).read_text(encoding="utf-8")) if spellings else {}
    normalize = EnglishTextNormalizer(table)
    counts = []
    for row, (transcript, reference) in enumerate(zip(transcripts, references, strict=True)):
        said, written = normalize(reference).strip(), normalize(transcript).strip()
        if not said:
            raise ValueError(f"reference {row} ({reference!r}) says nothing once it is normalised")
        words, characters = jiwer.process_words(said, written), jiwer.process_characters(said, written)
        counts.append([n for output in (words, characters) for n in (errors(output), length(output))])
    return CaptionScores(("wer", "cer"), np.array(counts, dtype=np.float64).reshape(-1, 4), rates)


def errors(output: object) -> int:
    """Edits between a reference and what was written."""
    return output.substitutions + output.deletions + output.insertions  # type: ignore[attr-defined]


def length(output: object) -> int:
    """Words or characters of the reference."""
    return output.substitutions + output.deletions + output.hits  # type: ignore[attr-defined]


def rates(sums: np.ndarray) -> np.ndarray:
    """(..., 4) errors and lengths of words, then of characters -> (..., 2) rates."""
    return sums[..., 0::2] / np.maximum(sums[..., 1::2], 1.0)

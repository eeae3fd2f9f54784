"""How long captions are and how many words they know: plain numbers that tell a terse or repetitive captioner."""

import numpy as np


STATISTICS = ("length", "reference_length", "vocabulary", "reference_vocabulary")  # they describe, they do not judge


def caption_statistics(
    candidates: list[str], references: list[list[str]]
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """
    Lengths and vocabularies of tokenised captions.

    Returns:
        Of the corpus, then of each caption: `length` and `reference_length`, mean tokens a caption; `vocabulary` and
        `reference_vocabulary`, different tokens. All references of a clip count.
    """
    words = [[caption.split()] for caption in candidates]
    reference_words = [[caption.split() for caption in row] for row in references]
    corpus = _statistics([row for rows in words for row in rows], [row for rows in reference_words for row in rows])
    return corpus, [_statistics(*rows) for rows in zip(words, reference_words, strict=True)]


def _statistics(captions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
    return {
        "length": float(np.mean([len(words) for words in captions])),
        "reference_length": float(np.mean([len(words) for words in references])),
        "vocabulary": float(len(set().union(*captions))),
        "reference_vocabulary": float(len(set().union(*references))),
    }

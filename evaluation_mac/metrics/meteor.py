"""METEOR 1.5 (Denkowski and Lavie, 2014): its Java program aligns the words, the score is computed here.

The program prints 23 numbers a caption. Their sums over captions give the corpus score, so resampling needs no Java.
"""

import numpy as np

from evaluation_mac.metrics.caption_scores import CaptionScores, MetricUnavailable
from evaluation_mac.metrics.java_program import pycocoevalcap_folder, run_java


_STATISTICS = 23
# The parameters for English, tuned to rank: weights of the matchers (exact, stem, synonym, paraphrase), the balance of
# precision and recall, exponent and height of the penalty for fragmentation, the share of content words.
_MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75


def meteor(candidates: list[str], references: list[list[str]]) -> CaptionScores:
    """METEOR in 0..1, named `meteor`, of tokenised captions, each against its own tokenised references."""
    jar = pycocoevalcap_folder("METEOR") / "meteor" / "meteor-1.5.jar"
    lines = [" ||| ".join(["SCORE", *row, candidate]) for candidate, row in zip(candidates, references, strict=True)]
    command = ["-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    answer = run_java("METEOR", command, "".join(f"{line}\n" for line in lines))
    rows = [line.split() for line in answer.splitlines()]
    if len(rows) != len(candidates) or any(len(row) != _STATISTICS for row in rows):
        raise MetricUnavailable(f"METEOR answered {len(rows)} lines for {len(candidates)} captions: {answer[:200]!r}")
    return meteor_from_statistics(np.array(rows, dtype=np.float64))


def meteor_from_statistics(statistics: np.ndarray) -> CaptionScores:
    """METEOR from the numbers that the program prints: (captions, 23)."""
    words, chunks, matched = statistics[:, :2], statistics[:, 20], statistics[:, 21:]
    # A candidate that equals its reference, one chunk of all words, pays no penalty, nor does the corpus for it.
    equal = (chunks == 1) & (matched == words).all(axis=1)
    statistics = statistics.copy()
    statistics[equal, 20] = 0
    return CaptionScores(("meteor",), statistics, _formula)


def _formula(sums: np.ndarray) -> np.ndarray:
    """
    (..., 23) summed statistics -> (..., 1).

    They are, always the candidate's and the reference's: words, function words; for each matcher, content words
    matched, function words matched; chunks; words matched.
    """
    words, function = sums[..., 0:2], sums[..., 2:4]
    matches = sums[..., 4:20].reshape(*sums.shape[:-1], len(_MATCHERS), 2, 2)  # matcher, content or function, whose
    matched = np.einsum("...mcw,m,c->...w", matches, _MATCHERS, [_DELTA, 1 - _DELTA])
    shares = _ratio(matched, _DELTA * (words - function) + (1 - _DELTA) * function)
    precision, recall = shares[..., :1], shares[..., 1:]
    mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragmentation = _ratio(sums[..., 20:21], sums[..., 21:].mean(axis=-1, keepdims=True))
    return mean * (1 - _GAMMA * fragmentation**_BETA)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their quotient, 0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator != 0)

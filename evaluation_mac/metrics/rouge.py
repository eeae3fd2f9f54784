"""ROUGE-L (Lin, ACL workshop 2004), as COCO's caption scorer computes it: the best recall and the best precision may
come from different references, and beta = 1.2 favours recall."""

from collections import defaultdict

from evaluation_mac.metrics.caption_scores import CaptionScores, averaged


_BETA_SQUARED = 1.2**2


def rouge_l(candidates: list[str], references: list[list[str]]) -> CaptionScores:
    """ROUGE-L in 0..1, named `rouge_l`, of tokenised captions, each against its own tokenised references."""
    return averaged("rouge_l", [_score(*pair) for pair in zip(candidates, references, strict=True)])


def _score(candidate: str, references: list[str]) -> float:
    # `split(" ")` makes one empty word of an empty caption: so the original never divides by zero, and so its scores.
    words = candidate.split(" ")
    precision = recall = 0.0
    for reference in references:
        reference_words = reference.split(" ")
        common = longest_common_subsequence(words, reference_words)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(reference_words))
    if precision == 0.0:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def longest_common_subsequence(first: list[str], second: list[str]) -> int:
    """
    Words in the longest common subsequence.

    Bit-parallel (Hyyrö 2004): bit i of `row` is 0 where the dynamic program's row steps up at word i of `second`; one
    addition then updates the whole row.
    """
    places: defaultdict[str, int] = defaultdict(int)
    for place, word in enumerate(second):
        places[word] |= 1 << place
    row = everything = (1 << len(second)) - 1
    for word in first:
        matches = row & places[word]
        row = (row + matches) | (row - matches)
    return len(second) - (row & everything).bit_count()

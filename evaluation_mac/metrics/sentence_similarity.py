"""How close captions are in meaning, by a sentence encoder, as FENSE does it (Zhou et al., ICASSP 2022).

FENSE takes the mean cosine similarity of a candidate and its references, embedded by the sentence-transformers model
`paraphrase-TinyBERT-L6-v2`, and divides it by ten where a classifier finds the candidate badly worded. This is the
first half, with whatever encoder the caller names: its tokens' states, averaged.
"""

from itertools import chain

import numpy as np

from evaluation_mac.metrics.caption_scores import CaptionScores, MetricUnavailable, averaged
from evaluation_mac.metrics.text_encoder import TextEncoder


def sentence_similarity(candidates: list[str], references: list[list[str]], encoder: str) -> CaptionScores:
    """
    Mean cosine similarity in -1..1, named `sentence_similarity`, of captions as they were written.

    Args:
        candidates: Caption of each clip.
        references: Reference captions of each clip.
        encoder: Folder or Hub name of an encoder that was trained for mean pooling.
    """
    try:
        text_encoder = TextEncoder(encoder)
    except ValueError as error:
        raise MetricUnavailable(f"sentence_similarity: {error}") from error
    embeddings = text_encoder.embed_text([*candidates, *chain(*references)])
    own, others = np.split(embeddings, [len(candidates)])
    rows = np.split(others, np.cumsum([len(row) for row in references])[:-1])
    scores = [float(np.mean(references_of @ vector)) for vector, references_of in zip(own, rows, strict=True)]
    return averaged("sentence_similarity", scores)

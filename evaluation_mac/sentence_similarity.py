"""How close captions are in meaning, by a sentence encoder, as FENSE does it (Zhou et al., ICASSP 2022).

FENSE takes the mean cosine similarity of a candidate and its references, embedded by the sentence-transformers model
`paraphrase-TinyBERT-L6-v2`, and divides it by ten where a classifier finds the candidate badly worded. This is the
first half, with whatever encoder the caller names: its tokens' states, averaged.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .caption_scores import CaptionScores, MetricUnavailable, averaged


_BATCH = 128  # captions


def sentence_similarity(candidates: list[str], references: list[list[str]], encoder: str) -> CaptionScores:
    """
    Mean cosine similarity in -1..1, named `sentence_similarity`, of captions as they were written.

    Args:
        candidates: a caption for each clip.
        references: the reference captions of each clip.
        encoder: folder or Hub name of an encoder that was trained for mean pooling.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        model = AutoModel.from_pretrained(encoder)
    except (OSError, ValueError) as error:
        raise MetricUnavailable(f"sentence_similarity cannot load the encoder {encoder!r}: {error}") from error
    sentences = list(dict.fromkeys(chain(candidates, *references)))
    embeddings = np.concatenate(list(_embed(sentences, tokenizer, model)))
    row_of = {sentence: row for row, sentence in enumerate(sentences)}
    scores = [
        float(np.mean(embeddings[[row_of[reference] for reference in row]] @ embeddings[row_of[candidate]]))
        for candidate, row in zip(candidates, references, strict=True)
    ]
    return averaged("sentence_similarity", scores)


@torch.inference_mode()
def _embed(sentences: list[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Iterator[np.ndarray]:
    """(batch, width) embeddings of length 1, batch by batch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval()
    for start in range(0, len(sentences), _BATCH):
        batch = tokenizer(sentences[start : start + _BATCH], padding=True, truncation=True, return_tensors="pt")
        batch = batch.to(device)
        states = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        yield torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()

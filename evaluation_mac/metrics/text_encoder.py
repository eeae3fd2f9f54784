"""Sentences -> vectors of length 1, by whatever encoder the caller names."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from evaluation_mac.metrics.openai_encoder import MARK, OpenAiEncoder


CLAP = "laion/clap-htsat-unfused"
_BATCH = 128  # sentences


class Encoder(Protocol):
    """What embeds sentences; `averages` tells whether over the states of all tokens, as BERT is used."""

    averages: bool

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """(sentences, width) float32 of length 1."""


def load_encoder(name: str) -> Encoder:
    """Load a `TextEncoder`, or for "openai:MODEL" ask OpenAI's embeddings."""
    return OpenAiEncoder(name.removeprefix(MARK)) if name.startswith(MARK) else TextEncoder(name)


class TextEncoder:
    """
    The text tower of CLAP or of a model like it; any other encoder, averaged over the states of its tokens.

    Args:
        name: Folder or Hub name of the encoder.

    Raises:
        ValueError: The encoder cannot be loaded.
    """

    def __init__(self, name: str = CLAP):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model = AutoModel.from_pretrained(name).to(self.device).eval()
        except (OSError, ValueError) as error:  # without a network they do not say what they looked for
            raise ValueError(f"the encoder {name} cannot be loaded: {error}") from error
        self.averages = not hasattr(self.model, "get_text_features")

    @torch.inference_mode()
    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """(sentences, width) float32; a sentence that comes again costs nothing."""
        unique = list(dict.fromkeys(sentences))
        batches = (unique[start : start + _BATCH] for start in range(0, len(unique), _BATCH))
        embeddings = np.concatenate([self._embed(batch) for batch in batches])
        row_of = {sentence: row for row, sentence in enumerate(unique)}
        return embeddings[[row_of[sentence] for sentence in sentences]]

    def _embed(self, sentences: list[str]) -> np.ndarray:
        batch = self.tokenizer(sentences, padding=True, truncation=True, return_tensors="pt").to(self.device)
        if self.averages:
            states = self.model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1)
            pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        else:
            pooled = self.model.get_text_features(**batch).pooler_output.float()
        return torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()

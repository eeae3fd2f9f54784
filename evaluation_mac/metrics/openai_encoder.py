"""Sentences -> vectors of length 1, by OpenAI's embeddings, which LTU's and GAMA's published figures rest on."""

from collections.abc import Sequence

import numpy as np


MARK = "openai:"  # before the name of a model of theirs
BATCH = 256  # sentences


class OpenAiEncoder:
    """
    A model of OpenAI's embeddings, such as "text-embedding-ada-002"; the client takes its key from OPENAI_API_KEY.

    Args:
        name: Name of the model.

    Raises:
        ValueError: The client is not installed, or has no key.
    """

    averages = False

    def __init__(self, name: str):
        try:
            import openai
        except ImportError as error:
            raise ValueError(f"{MARK}{name} needs OpenAI's client: pip install openai") from error
        self.name, self.error = name, openai.OpenAIError
        try:
            self.client = openai.OpenAI()
        except openai.OpenAIError as error:
            raise ValueError(f"{MARK}{name}: {error}") from error

    def embed_text(self, sentences: Sequence[str]) -> np.ndarray:
        """(sentences, width) float32; a sentence that comes again costs nothing."""
        unique = list(dict.fromkeys(sentences))
        vectors: dict[str, list[float]] = {}
        for start in range(0, len(unique), BATCH):
            batch = unique[start : start + BATCH]
            try:
                answer = self.client.embeddings.create(model=self.name, input=batch, encoding_format="float")
            except self.error as error:
                raise ValueError(f"{MARK}{self.name}: {error}") from error
            vectors |= {batch[one.index]: one.embedding for one in answer.data}
        embeddings = np.array([vectors[sentence] for sentence in sentences], dtype=np.float32)
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

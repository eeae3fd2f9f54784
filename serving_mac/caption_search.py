"""
Search in an index: by the captions first, then by how likely the model finds the query after the best recordings.

A model that learnt from few captions has no sensible likelihood for words that it never wrote. So by default the query
is read as a choice among captions that the model did write: p(query | audio) = sum over captions c of
p(query | c) p(c | audio), where p(query | c) grows with the similarity of query and caption, and p(c | audio) is
exact, from the kept state. docs/searching.md has the figures of this and of the likelihood of the query itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import bm25s
import numpy as np
import pandas as pd
import snowballstemmer

from evaluation_mac.metrics.text_encoder import TextEncoder

from .caption_vectors import caption_vectors
from .index_folder import IndexFolder
from .index_states import StateReader


NEAREST = 5  # captions that a query is read as
TEMPERATURE = 0.1  # of their similarities, which are relative to that of the nearest


@dataclass(frozen=True)
class Hit:
    """
    A segment that was found.

    Args:
        audio: Path of its recording.
        start, end: Where it lies there, in seconds.
        caption: What the model said of it.
        similarity: Of caption and query: BM25's score or the cosine of their vectors.
        log_likelihood: Of the query after the audio, in nats; None where it was not asked for.
    """

    audio: str
    start: float
    end: float
    caption: str
    similarity: float
    log_likelihood: float | None


class CaptionSearch:
    """
    Finds recordings of an index by words.

        search = CaptionSearch(IndexFolder(Path("sounds.index")), reader=StateReader(load_captioner(DEFAULT_MODEL)))
        search.find("rain on a roof")

    Args:
        index: Index.
        encoder: Sentence encoder that compares query and captions; by their words (BM25) if None.
        reader: Model of the index, for re-ranking; None to search by captions alone.

    Raises:
        ValueError: The model is not that of the index, or its file of vectors is damaged.
    """

    def __init__(self, index: IndexFolder, encoder: TextEncoder | None = None, reader: StateReader | None = None):
        self.index, self.encoder = index, encoder
        self.reader: Any = reader
        if reader is not None:
            index.settings.refuse_other_model(index.folder, reader.weights)
        self.rows = np.flatnonzero(index.table["caption"].str.strip() != "")
        table = index.table.iloc[self.rows]
        self.codes, unique = pd.factorize(table["caption"])
        self.captions = [str(caption) for caption in unique]
        self.losses = table["loss"].to_numpy()
        self.bm25 = bm25s.BM25()
        if not self.captions:
            return
        if encoder is None:
            self.bm25.index(split_words(self.captions), show_progress=False)
        else:
            self.vectors = caption_vectors(index.folder, self.captions, encoder)

    def find(
        self, query: str, top: int = 10, rerank: int = 100, likelihood: Literal["captions", "query"] = "captions"
    ) -> list[Hit]:
        """
        Find the segments that fit a query best.

        Args:
            query: What to look for.
            top: Most segments to return.
            rerank: Number of segments, the best by their captions, that are ordered by likelihood; needs a `reader`.
            likelihood: "captions": that of the captions nearest to the query; "query": that of its own words.

        Returns:
            Segments, the best first. By words, only those whose caption shares one with the query.
        """
        if not query.strip():
            raise ValueError("the query is blank; expected words")
        if not self.captions:
            return []
        similarities = self.compare(query)
        similar = similarities[self.codes]
        # Of those with one caption, the first are those of which the model is surest.
        order = np.lexsort((self.losses, -similar))
        if self.encoder is None:
            order = order[similar[order] > 0]
        best, likely = order[:rerank], np.zeros(0)
        if self.reader is not None and len(best):
            likely = self.likelihoods(self.rows[best], query, similarities, likelihood)
            ranks = np.argsort(-likely, kind="stable")
            order, likely = np.concatenate([best[ranks], order[rerank:]]), likely[ranks]
        found = self.index.table.iloc[self.rows[order[:top]]]
        rows = found[["audio", "start", "end", "caption"]].itertuples(index=False)
        return [
            Hit(audio, start, end, caption, float(similar[place]), float(likely[rank]) if rank < len(likely) else None)
            for rank, ((audio, start, end, caption), place) in enumerate(zip(rows, order, strict=False))
        ]

    def compare(self, query: str) -> np.ndarray:
        """Compute the similarity of a query with each of `captions`, (captions,); by words, 0 if they share none."""
        if self.encoder is not None:
            return self.vectors @ self.encoder.embed_text([query])[0]
        [words] = split_words([query])
        return self.bm25.get_scores(words) if words else np.zeros(len(self.captions), np.float32)

    def likelihoods(self, rows: np.ndarray, query: str, similarities: np.ndarray, likelihood: str) -> np.ndarray:
        """
        Compute the log-likelihood of a query after each of some segments, (rows,), up to a constant of the query.

        Args:
            rows: Rows of the index's table, (rows,).
            query: Query.
            similarities: Similarity of the query with each of `captions`, (captions,).
            likelihood: "captions" or "query", as for `find`.
        """
        if likelihood == "query":
            return self.log_likelihoods(rows, [query])[:, 0]
        nearest = np.argsort(-similarities, kind="stable")[:NEAREST]
        if self.encoder is None:
            nearest = nearest[similarities[nearest] > 0]
        best = similarities[nearest[0]]
        relative = (similarities[nearest] - best) / (abs(best) or 1.0)
        texts = [self.captions[place] for place in nearest]
        return np.logaddexp.reduce(self.log_likelihoods(rows, texts) + relative / TEMPERATURE, axis=1)

    def log_likelihoods(self, rows: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Compute the log-likelihood of texts after each of some segments of the table, (rows, texts), in nats."""
        assert self.reader is not None  # `find` comes here with one alone
        lengths = np.array([len(tokens) for tokens in self.reader.tokenize(texts)])
        return -self.reader.score(self.index.states(rows), texts).numpy() * lengths


def split_words(texts: Sequence[str]) -> list[list[str]]:
    """Split texts into the stems of their English words, without those that every text has."""
    stem = snowballstemmer.stemmer("english").stemWords
    return bm25s.tokenize(list(texts), stopwords="en", stemmer=stem, return_ids=False, show_progress=False)

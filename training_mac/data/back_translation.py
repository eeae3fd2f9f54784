"""Paraphrases by translation there and back (SLAM-AAC, arXiv 2410.09503), and which of them are good enough."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


class Translator:
    """
    A translation model of transformers for one direction, such as Marian's.

    Args:
        name: Folder or Hub id.
        prefix: Text before each sentence: the target's code of a model with several (">>cmn_Hans<< "), or a task.

    Raises:
        ValueError: The model cannot be loaded, is none that translates, or does not know into which language.
    """

    def __init__(self, name: str, prefix: str = ""):
        self.prefix = prefix
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model = AutoModelForSeq2SeqLM.from_pretrained(name).to(self.device).eval()
        except (OSError, ValueError, ImportError) as error:  # ImportError: its tokenizer needs SentencePiece
            raise ValueError(f"{name} cannot be loaded as a model that translates: {error}") from error
        if hasattr(self.tokenizer, "src_lang"):
            raise ValueError(f"{name} translates between many languages; expected a model for one direction.")
        codes = getattr(self.tokenizer, "supported_language_codes", [])
        if codes and not prefix.startswith(tuple(codes)):
            raise ValueError(f"{name} translates into several languages: give the code of one as prefix, {codes[0]} "
                             f"or another of {len(codes)}.")  # fmt: skip

    @torch.inference_mode()
    def translate(self, texts: Sequence[str], num_beams: int, number: int) -> list[list[str]]:
        """Give the `number` best translations of each text by a search with `num_beams` beams."""
        prefixed = [self.prefix + text for text in texts]
        # A text of more tokens than the model reads is cut; its translation is then too short to be kept.
        batch = self.tokenizer(prefixed, padding=True, truncation=True, return_tensors="pt").to(self.device)
        output = self.model.generate(**batch, num_beams=num_beams, num_return_sequences=number, do_sample=False)
        found = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        return [found[start : start + number] for start in range(0, len(found), number)]


@dataclass
class Filter:
    """
    Chooses paraphrases: others than the caption, of about its length, and of its meaning.

    Args:
        embed: Function from sentences to vectors of length 1, (sentences, width).
        number: Most paraphrases of a caption.
        similarity: Least cosine of caption and paraphrase.
        shortest, longest: Bounds of a paraphrase's number of words, as shares of the caption's.

    Attributes:
        counts: How many candidates were kept, and how many fell to each test.
    """

    embed: Callable[[Sequence[str]], np.ndarray]
    number: int
    similarity: float
    shortest: float
    longest: float
    counts: Counter = field(default_factory=Counter)

    def choose(self, captions: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[str]]:
        """Give of the candidates of each caption those that are good enough, in their order, at most `number`."""
        fitting = [self.fitting(*pair) for pair in zip(captions, candidates, strict=True)]
        vectors = self.embed([*captions, *chain(*fitting)])
        own, others = np.split(vectors, [len(captions)])
        rows = np.split(others, np.cumsum([len(row) for row in fitting])[:-1])
        return [self.alike(*row) for row in zip(fitting, rows, own, strict=True)]

    def fitting(self, caption: str, candidates: Sequence[str]) -> list[str]:
        """Give the candidates in other words than the caption's, and of about its length."""
        seen, found = {key_of(caption)}, []
        for candidate in (" ".join(one.split()) for one in candidates):
            words = key_of(candidate)
            share = len(words) / max(1, len(key_of(caption)))
            if words in seen:
                self.counts["equal"] += 1
            elif not self.shortest <= share <= self.longest:
                self.counts["length"] += 1
            else:
                found.append(candidate)
            seen.add(words)
        return found

    def alike(self, candidates: list[str], vectors: np.ndarray, caption: np.ndarray) -> list[str]:
        """Give the candidates, with vectors (candidates, width), that are near to the caption's vector, (width,)."""
        near = [one for one, vector in zip(candidates, vectors, strict=True) if vector @ caption >= self.similarity]
        kept = near[: self.number]
        self.counts.update(kept=len(kept), similarity=len(candidates) - len(near), number=len(near) - len(kept))
        return kept


def key_of(text: str) -> tuple[str, ...]:
    """Give the words of a text; texts that differ in case and punctuation alone have the same."""
    return tuple(re.findall(r"\w+", text.casefold()))


def paraphrase(
    captions: Sequence[str], there: Translator, back: Translator, chooser: Filter, num_beams: int
) -> list[list[str]]:
    """Give the paraphrases of each caption: the best translation there, and the `num_beams` best of it back."""
    abroad = [best for [best] in there.translate(captions, num_beams, 1)]
    return chooser.choose(captions, back.translate(abroad, num_beams, num_beams))

"""Evaluation of audio captions."""

from .ptb_tokenizer import ptb_tokenize
from .scoring import DEFAULT_METRICS, METRICS, score_captions


__all__ = ["DEFAULT_METRICS", "METRICS", "ptb_tokenize", "score_captions"]

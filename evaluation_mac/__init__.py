"""
Evaluation: how good is a captioner, in figures?

Come in at `cli` (`mac-eval`). Imports run one way: cli -> protocols (how a model is asked) -> reports (what a reader
sees), and both stand on metrics (texts and numbers in, scores out) and datasets (what is asked about).
"""

from evaluation_mac.metrics.ptb_tokenizer import ptb_tokenize
from evaluation_mac.metrics.scoring import DEFAULT_METRICS, METRICS, score_captions


__all__ = ["DEFAULT_METRICS", "METRICS", "ptb_tokenize", "score_captions"]

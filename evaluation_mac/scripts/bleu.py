"""For `evaluate.load("evaluation_mac/scripts/bleu.py")`."""

from evaluation_mac.metrics.hub_metrics import Bleu


__all__ = ["Bleu"]

"""For `evaluate.load("evaluation_mac/scripts/rouge_l.py")`."""

from evaluation_mac.metrics.hub_metrics import RougeL


__all__ = ["RougeL"]

"""For `evaluate.load("evaluation_mac/scripts/cider_d.py")`."""

from evaluation_mac.metrics.hub_metrics import CiderD


__all__ = ["CiderD"]

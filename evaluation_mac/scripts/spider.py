"""For `evaluate.load("evaluation_mac/scripts/spider.py")`."""

from evaluation_mac.metrics.hub_metrics import Spider


__all__ = ["Spider"]

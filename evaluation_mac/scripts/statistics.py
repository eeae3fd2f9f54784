"""For `evaluate.load("evaluation_mac/scripts/statistics.py")`."""

from evaluation_mac.metrics.hub_metrics import CaptionStatistics


__all__ = ["CaptionStatistics"]

"""For `evaluate.load("evaluation_mac/scripts/spice.py")`."""

from evaluation_mac.metrics.hub_metrics import Spice


__all__ = ["Spice"]

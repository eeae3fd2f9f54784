"""For `evaluate.load("evaluation_mac/scripts/meteor.py")`."""

from evaluation_mac.metrics.hub_metrics import Meteor


__all__ = ["Meteor"]

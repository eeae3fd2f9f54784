"""For `evaluate.load("evaluation_mac/scripts/sentence_similarity.py")`."""

from evaluation_mac.metrics.hub_metrics import SentenceSimilarity


__all__ = ["SentenceSimilarity"]

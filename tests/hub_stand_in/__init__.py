"""A Hub on loopback for the real huggingface_hub client to talk to."""

from .server import DROPPED, HELD, UNANSWERED, HubStandIn


__all__ = ["DROPPED", "HELD", "UNANSWERED", "HubStandIn"]

"""What a model says of itself: its name, its size, and what its card says that it knows."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils import cached_file


class ModelFacts(NamedTuple):
    """Words about a model."""

    name: str
    size: str
    knows: str  # first sentence of its card as plain text; empty without a card


def read_facts(model: str, loaded: Any) -> ModelFacts:
    """
    Read what is known about a model.

    Args:
        model: Its folder or Hub id.
        loaded: The model itself, which tells its size.
    """
    folder = Path(model)
    name = folder.resolve().name if folder.is_dir() else model
    millions = sum(parameter.numel() for parameter in loaded.parameters()) / 1e6
    card = cached_file(
        model, "README.md", _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )  # fmt: skip
    knows = first_sentence(Path(card).read_text(encoding="utf-8", errors="replace")) if card else ""
    return ModelFacts(name, f"{millions:.3g} million parameters", knows)


def first_sentence(card: str) -> str:
    """Take the first sentence below the title of a card in Markdown, without pictures, links and marks of style."""
    _, _, body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL).partition("\n# ")
    for block in re.split(r"\n\s*\n", body)[1:]:
        text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", block)
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
        if text.strip() and not text.lstrip().startswith(("#", "```", "|", "<", "-", "*")):
            return re.split(r"(?<=[.!?]) ", " ".join(re.sub(r"[*`]", "", text).split()))[0]
    return ""

"""Captions with known scores."""

import json
import os
from pathlib import Path
from typing import Any

import pytest


HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def golden_captions() -> dict[str, Any]:
    """Captions of our own wording, scored once by pycocoevalcap 1.2; METEOR with the numbers its program printed."""
    return json.loads((HERE / "golden_captions.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published captions and scores, which the repository does not carry."""
    folder = Path(os.environ.get("MAC_DATA", HERE.parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the caption tables, which are not at {folder}; MAC_DATA may name their folder")
    return folder

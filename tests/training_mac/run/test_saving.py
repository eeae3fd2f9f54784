"""What a saved model says of its training."""

import json
from typing import Any

import pytest
from transformers import AutoProcessor


@pytest.mark.parametrize(("fields", "windows"), [({"max_windows": 1}, 1), ({"max_windows": None}, 2)])
def test_a_model_says_how_many_windows_it_was_trained_on(
    fields: dict[str, Any], windows: int, base, write_recipe, train
) -> None:
    """Two recordings of 3 s, one after the other, are two windows of 5.12 s."""
    folder = train(write_recipe(base_model=str(base), join_probability=1.0, naming=None, **fields))
    assert AutoProcessor.from_pretrained(folder).trained_windows == windows
    log = json.loads((folder / "stage-1" / "trainer_state.json").read_text())["log_history"]
    assert {entry["windows_per_clip"] for entry in log if "loss" in entry} == {windows}

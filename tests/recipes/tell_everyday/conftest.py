"""A model, scenes, and the command on both."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest


sys.path.insert(0, str(Path(__file__).parents[3] / "recipes"))
sys.path.insert(0, str(Path(__file__).parent))

import tell_everyday
from made_scenes import mix, save_model


@pytest.fixture
def model(make_config, tokenizer, tmp_path: Path) -> Path:
    """A folder as hear_everyday.py leaves it."""
    save_model(tmp_path / "model", make_config, tokenizer, seed=0)
    save_model(tmp_path / "model" / "untaught", make_config, tokenizer, seed=1)
    return tmp_path / "model"


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    return [mix(tmp_path / "one", 30, 0), mix(tmp_path / "other", 12, 1)]


@pytest.fixture
def run(model: Path, scenes: list[Path], tmp_path: Path) -> Callable[..., Path]:
    """Runs the command with small batches; returns its output."""

    def start(*arguments: str, output: str = "out") -> Path:
        paths = [*map(str, scenes), "--model", str(model), "--output", str(tmp_path / output)]
        tell_everyday.main([*paths, "--batch", "4", *arguments])
        return tmp_path / output

    return start

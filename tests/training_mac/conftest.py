"""A manifest of four synthetic recordings, a recipe small enough to train in seconds, and ways to train it."""

import ast
import csv
import itertools
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file

from processing_mac.dataset_mac import Clip
from training_mac.data.tables import ClipTables
from training_mac.examples.training_set import make_training_set
from training_mac.recipe.data_fields import DataRecipe, parse_sources


ROOT = Path(__file__).parents[2]
OF_NEW_MODEL = ("model", "vocab_size")


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    time = np.arange(3 * 16_000) / 16_000
    rng = np.random.default_rng(0)
    rows = []
    for index, (source, name) in enumerate([("siren", "siren wails"), ("rain", "rain falls")] * 2):
        tone = np.sin(2 * np.pi * (500 + 200 * np.sin(2 * np.pi * time)) * time)
        sound = tone if source == "siren" else rng.standard_normal(len(time))
        soundfile.write(folder / f"{index}.wav", 0.1 * sound, 16_000)
        rows.append({"audio": f"{index}.wav", "source": source, "caption": f"the {name}", "phrase": f"the {source}"})
    with open(folder / "clips.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "clips.csv"


@pytest.fixture
def write_recipe(manifest: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe; keyword arguments replace its fields."""

    def write(**fields: Any) -> Path:
        settings = {
            "output_dir": str(tmp_path / "run"),
            "train_data": str(manifest),
            "eval_data": str(manifest),
            "max_windows": 1,
            "prompt": "Describe the sound.",
            "naming": "esc50",
            "vocab_size": 300,
            "model": {
                "audio_config": {
                    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
                    "window_frames": 512,
                },
                "text_config": {
                    "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 16,
                    "n_groups": 1, "initializer_range": 0.02,
                },
            },
            "per_device_train_batch_size": 4,
            "learning_rate": 3e-3,
            "max_steps": 3,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
            **fields,
        }  # fmt: skip
        if settings.get("base_model") or settings.get("base_language_model"):  # beside these they would not be read
            settings = {name: value for name, value in settings.items() if name in fields or name not in OF_NEW_MODEL}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return write


@pytest.fixture
def recipe_file(write_recipe) -> Path:
    """A two-stage recipe: tags, then captions."""
    return write_recipe(
        store_float16=True,
        stages=[
            {"objective": "tags", "kept_patches": 32, "join_probability": 0.5, "overlay_probability": 0.5},
            {"objective": "captions", "encoder": "frozen", "eval_strategy": "steps", "eval_steps": 3},
        ],
    )


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs train.py in this process; gives the run's folder, or raises what train.py only tells in a line."""

    def run(recipe: Path, *overrides: str) -> Path:
        monkeypatch.setattr(sys, "argv", ["train.py", str(recipe), *overrides])
        try:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        except SystemExit as ended:
            raise ended.__cause__ or ended from None
        folders = [value for name, value in itertools.pairwise(overrides) if name == "--output_dir"]
        return Path(folders[0]) if folders else Path(yaml.safe_load(recipe.read_text())["output_dir"])

    return run


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model from nothing, as `base_model`."""
    from training_mac.recipe.fields import Recipe
    from training_mac.run.building import make_base

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "base"
    audio = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1}
    model = {"audio_config": {**audio, "window_frames": 512}, "text_config": {**text, "initializer_range": 0.02}}
    make_base(
        Recipe(model=model, vocab_size=300), "Describe the sound.", ["the siren wails", "the rain falls"], folder
    )
    return folder


@pytest.fixture
def in_process() -> Callable[..., subprocess.CompletedProcess]:
    """Runs Python with these arguments in a process of its own."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, **options)

    return run


@pytest.fixture
def weights_after() -> Callable[..., dict[str, torch.Tensor]]:
    """What a stage had learnt at its end."""
    return lambda folder, stage=1: load_file(Path(folder) / f"stage-{stage}" / "result" / "model.safetensors")


@pytest.fixture
def tables(tmp_path: Path) -> ClipTables:
    """Where clips go that a test reads."""
    return ClipTables(tmp_path / "clips")


@pytest.fixture
def read_data(tmp_path: Path) -> Callable[[DataRecipe], ClipTables]:
    """Reads the sources of a recipe's data, anew each time; raises what is wrong with them."""
    numbers = itertools.count()

    def read(data: DataRecipe) -> ClipTables:
        tables = ClipTables(tmp_path / f"clips-{next(numbers)}")
        for source in (*parse_sources(data.train_data, data), *parse_sources(data.eval_data, data, split=None)):
            if source.format == "webdataset":
                continue
            problems, missing = tables.read(source)
            if problems or (missing and not data.skip_bad_audio):
                raise ValueError("\n".join([*problems, *missing]))
        return tables

    return read


@pytest.fixture
def load_clips(read_data) -> Callable[..., list[Clip]]:
    """The clips of what a recipe names as its training data."""

    def load(value: Any, **fields: Any) -> list[Clip]:
        data = DataRecipe(value, **fields)
        return [clip for _, table in read_data(data).training(data) for clip in table]

    return load


@pytest.fixture
def make_set(read_data, processor) -> Callable[..., Any]:
    """The training set of a recipe's data."""
    return lambda data, seed=0: make_training_set(data, processor, seed, read_data(data))


STRANGER = """
import sys

class Absent:
    \"\"\"Hides the packages, should this Python have them installed.\"\"\"
    def find_spec(self, name, path=None, target=None):
        if name in ("modeling_mac", "processing_mac"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
from transformers import pipeline

captioner = pipeline("audio-captioning", model=sys.argv[1], device="cpu", trust_remote_code=True)
print(repr(captioner(sys.argv[2])[0]["caption"]))
"""


@pytest.fixture
def captioned_by_a_stranger(tmp_path: Path) -> Callable[[Path, Path], str]:
    """What a process without the packages says of a recording, by the code in the model's folder."""

    def caption(folder: Path, audio: Path) -> str:
        cache = {"HF_HOME": str(tmp_path / "cache"), "HF_MODULES_CACHE": str(tmp_path / "cache" / "modules")}
        command = [sys.executable, "-I", "-c", STRANGER, str(folder), str(audio)]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **cache}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return ast.literal_eval(done.stdout.splitlines()[-1])

    return caption

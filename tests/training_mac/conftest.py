"""A manifest of four synthetic recordings and a recipe small enough to train in seconds."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml


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
def recipe_file(manifest: Path, tmp_path: Path) -> Path:
    """A two-stage recipe: tags, then captions."""
    settings = {
        "output_dir": str(tmp_path / "run"),
        "train_data": str(manifest),
        "eval_data": str(manifest),
        "max_windows": 1,
        "prompt": "Describe the sound.",
        "vocab_size": 300,
        "store_float16": True,
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
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": True,
        "stages": [
            {"objective": "tags", "kept_patches": 32, "join_probability": 0.5, "overlay_probability": 0.5},
            {"objective": "captions", "encoder": "frozen", "eval_strategy": "steps", "eval_steps": 3},
        ],
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path

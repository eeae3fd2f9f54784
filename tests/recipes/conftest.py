"""Recordings, and a MAC that may learn from them."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

from everyday_grammar import Grammar

from modeling_mac import EatConfig, MacForConditionalGeneration
from processing_mac import MacFeatureExtractor, MacProcessor


RATE = 16_000
FRAMES = 128  # of a window, 1.28 s
TAGS = Grammar().tags
SOUNDS = {"rain": 0, "dog": 300, "siren": 2500}  # kinds, and the Hz of their tones; 0 for noise


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A manifest of recordings of three kinds, of silence, and of one that nobody knows."""
    rng, rows = np.random.default_rng(0), []
    for number, kind in enumerate([*SOUNDS, *SOUNDS, "silence", ""]):
        hertz = SOUNDS.get(kind, 0) * (1 + 0.05 * number)
        wave = np.sin(2 * np.pi * hertz / RATE * np.arange(RATE)) if hertz else rng.standard_normal(RATE)
        soundfile.write(tmp_path / f"{number}.wav", (0.0 if kind == "silence" else 0.1) * wave, RATE)
        rows.append({"audio": f"{number}.wav", "source": kind, "group": str(number)})
    with open(tmp_path / "train.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "train.csv"


@pytest.fixture
def folder(make_config, tokenizer, tmp_path: Path) -> Path:
    """A MAC with windows of 1.28 s and more units in its connector than there are tags."""
    torch.manual_seed(0)
    audio = EatConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        window_frames=FRAMES,
        drop_path_rate=0.1,  # so that a step of training depends on chance
    )
    config = make_config(audio_config=audio, connector_hidden_size=len(TAGS) + 2, tie_word_embeddings=False)
    MacForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    counts = {name: getattr(config, name) for name in ("audio_tokens_per_window", "audio_tokens_per_run")}
    processor = MacProcessor(MacFeatureExtractor(window_frames=FRAMES), tokenizer, **counts)
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"

"""Small models and scenes, as the commands before `tell_everyday.py` leave them."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch


sys.path.insert(0, str(Path(__file__).parents[3] / "recipes"))

from everyday_grammar import Grammar

from modeling_mac import EatConfig, MacForConditionalGeneration
from processing_mac import MacFeatureExtractor, MacProcessor
from training_mac.objectives.teacher_targets import TeacherTargets


RATE = 16_000
FRAMES, ROWS = 128, 8  # of a window, 1.28 s
GRAMMAR = Grammar()
TAGS = GRAMMAR.tags
SOUNDS = {"rain": 0, "dog": 300, "siren": 2500}  # kinds, and the Hz of their tones; 0 for noise


def save_model(folder: Path, make_config: Callable, tokenizer: Any, seed: int, **fields: Any) -> None:
    """Save a random MAC with windows of 1.28 s, whose connector has a unit for each tag."""
    torch.manual_seed(seed)
    audio = EatConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, window_frames=FRAMES
    )
    defaults = {"audio_config": audio, "connector_hidden_size": len(TAGS), "tie_word_embeddings": False}
    config = make_config(**{**defaults, **fields})
    model = MacForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.connector.linear_1.weight, std=0.1)
    model.save_pretrained(folder)
    counts = {name: getattr(config, name) for name in ("audio_tokens_per_window", "audio_tokens_per_run")}
    frames = config.audio_config.window_frames
    MacProcessor(MacFeatureExtractor(window_frames=frames), tokenizer, **counts).save_pretrained(folder)


def make_sound(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A second and more of a kind of sound."""
    length = int(rng.uniform(1.1, 1.5) * RATE)
    tone = np.sin(2 * np.pi * SOUNDS[kind] * rng.uniform(0.8, 1.2) / RATE * np.arange(length))
    return 0.1 * (tone if SOUNDS[kind] else rng.standard_normal(length))


def mix(folder: Path, scenes: int, seed: int) -> Path:
    """Write scenes of one sound or two, as mix_everyday.py does."""
    rng, rows, targets = np.random.default_rng(seed), [], TeacherTargets(TAGS)
    folder.mkdir()
    for number in range(scenes):
        kinds = [list(SOUNDS)[number % 3], list(SOUNDS)[(number + 1) % 3]][: 1 + number % 2]
        name, wave, events, stretches = f"{folder.name}-{number}.flac", np.zeros(0), [], []
        for kind in kinds:
            first, wave = len(wave) / RATE, np.concatenate([wave, make_sound(kind, rng)])
            events.append((kind, first, len(wave) / RATE))
            stretches.append((first, len(wave) / RATE, GRAMMAR.tags_of(kind)))
        soundfile.write(folder / name, wave, RATE)
        targets.add(name, np.zeros((2, 4)), stretches, [f"take-{seed}-{number}"])
        relation = "followed_by" if len(kinds) == 2 else "single"
        rows.append({"audio": name, "caption_1": "x", "relation": relation, "events": json.dumps(events)})
    targets.save(folder / "targets.safetensors")
    write(folder / "scenes.csv", rows)
    return folder


def write(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)

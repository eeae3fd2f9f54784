"""`mac-eval tokens`: models side by side, padding left out."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch

from evaluation_mac.cli import main
from evaluation_mac.metrics.token_geometry import mean_cosine
from evaluation_mac.protocols.tokens import look_at_tokens, token_places
from modeling_mac import MacForConditionalGeneration
from processing_mac import AudioCaptioningPipeline


@pytest.fixture
def captioners(make_config, make_processor):
    """A captioner of each of two connectors."""
    torch.manual_seed(0)
    made = {}
    for kind in ("concat", "frequency_major"):
        model = MacForConditionalGeneration(make_config(connector_type=kind)).eval()
        made[kind] = AudioCaptioningPipeline(model, processor=make_processor(model.config), device="cpu")
    return made


def test_only_tokens_with_sound_are_looked_at(captioners, sound, tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", sound(2), 16_000)
    short, _ = look_at_tokens(captioners["frequency_major"], str(tmp_path / "a.wav"))
    assert short["encoder_tokens"] == short["connector_tokens"] == 198 // 16 * 8  # 2 s are 198 frames
    assert look_at_tokens(captioners["concat"], str(tmp_path / "a.wav"))[0]["connector_tokens"] == 12


def test_bands_stay_together_in_a_sequence_by_frequency(captioners) -> None:
    model = captioners["frequency_major"].model.model
    window = torch.randn(1, 1024, 128)
    with torch.inference_mode():
        places = {name: (tokens, grid) for name, tokens, grid in token_places(model, window, 64, 8, 64)}
        tokens = model.connector(model.audio_tower(window).last_hidden_state[:, 1:])[0].numpy()
    found, (_, bands) = places["connector"]
    assert mean_cosine(found, bands) == pytest.approx(mean_cosine(tokens, np.arange(512) // 64))


def test_models_stand_side_by_side(captioners, sound, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, captioner in captioners.items():
        captioner.save_pretrained(kind)
    for number in range(2):
        soundfile.write(f"{number}.wav", sound(2, number + 1), 16_000)
    with open("data.csv", "w", newline="") as file:
        csv.writer(file).writerows([("audio", "caption"), ("0.wav", "a"), ("1.wav", "b"), ("none.wav", "c")])
    models = ("--model", "concat", "--model", "frequency_major")
    assert main(["tokens", *models, "--data", "data.csv", "--output", "out"]) == 1  # one file is missing
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert list(results["models"]) == ["concat", "frequency_major"] and "none.wav" in str(results["failed"])
    score = results["models"]["concat"]["scores"]["encoder_rank_95"]
    assert score["interval_95"][0] <= score["value"] <= score["interval_95"][1]
    assert "| encoder_centred_cosine |" in (tmp_path / "out/report.md").read_text()

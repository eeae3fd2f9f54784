"""`mac-eval tokens`: models side by side, padding left out."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch

from evaluation_mac.cli import main
from evaluation_mac.metrics.token_geometry import mean_cosine
from evaluation_mac.protocols.tokens import listener_of, look_at_tokens, token_places
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
    short, _ = look_at_tokens(listener_of(captioners["frequency_major"]), str(tmp_path / "a.wav"))
    assert short["encoder_tokens"] == short["connector_tokens"] == 198 // 16 * 8  # 2 s are 198 frames
    found, curves = look_at_tokens(listener_of(captioners["concat"]), str(tmp_path / "a.wav"))
    assert found["connector_tokens"] == 12
    assert found["connector_rank_90_share"] == found["connector_rank_90"] / 12
    assert curves.keys() == {"encoder", "encoder_centred", "connector", "connector_centred"}


def test_bands_stay_together_in_a_sequence_by_frequency(captioners) -> None:
    listener, model = listener_of(captioners["frequency_major"]), captioners["frequency_major"].model.model
    window = torch.randn(1, 1024, 128)
    with torch.inference_mode():
        places = {name: (tokens, grid) for name, tokens, grid in token_places(listener, window, 64, 8, 64)}
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
    assert (tmp_path / "out/measures.png").stat().st_size > 0
    assert main(["tokens", *models[:2], "--data", "data.csv", "--output", "first", "--clips", "1"]) == 0
    with open("first/clips.csv", newline="") as file:
        assert [row["audio"] for row in csv.DictReader(file)] == ["0.wav"]


def test_a_tower_alone_has_what_it_has_in_a_captioner(captioners, sound, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    captioners["concat"].save_pretrained("mac")
    captioners["concat"].model.model.audio_tower.save_pretrained("eat")
    soundfile.write("a.wav", sound(2), 16_000)
    (tmp_path / "data.csv").write_text("audio,caption\na.wav,a\n")
    data = ("--data", "data.csv", "--output", "out")
    assert main(["tokens", "--model", "mac", "--tower", "eat", *data]) == 0
    models = json.loads((tmp_path / "out/results.json").read_text())["models"]
    assert list(models) == ["eat (tower)", "mac"]
    shared = {name for name in models["mac"]["scores"] if name.startswith("encoder_")}
    assert models["eat (tower)"]["scores"] == {name: models["mac"]["scores"][name] for name in shared}
    assert main(["tokens", "--model", "mac", "--tower", "mac", *data]) == 0  # a captioner's own tower
    assert list(json.loads((tmp_path / "out/results.json").read_text())["models"]) == ["mac (tower)", "mac"]
    twice = ("--model", "mac", "--model", "mac", *data)
    for arguments, message in (
        (data, "expected --model or --tower"), (("--tower", "none", *data), "--tower "), (twice, "mac is given twice"),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            main(["tokens", *arguments])
        assert message in capsys.readouterr().err

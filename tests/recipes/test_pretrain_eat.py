"""EAT's own pre-training hears a part, tells the rest, and leaves a model that a recipe can start from."""

import csv
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import pretrain_eat

from modeling_mac import EatConfig, EatModel, MacForConditionalGeneration


@pytest.fixture
def tower() -> EatModel:
    torch.manual_seed(0)
    return EatModel(
        EatConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, window_frames=256)
    )


def test_a_fifth_of_the_patches_is_shown_in_blocks() -> None:
    torch.manual_seed(0)
    shown = pretrain_eat.draw_blocks((16, 8))
    assert len(shown) == len(shown.unique()) == 26
    grid = torch.zeros(128).scatter(0, shown, 1.0).view(1, 1, 16, 8)
    beside = torch.nn.functional.conv2d(grid, torch.ones(1, 1, 3, 3), padding=1)
    assert beside[grid > 0].mean() > 4  # alone, a patch in five would have fewer than three


def test_the_masked_are_told_from_the_shown_alone() -> None:
    torch.manual_seed(0)
    decoder, shown = pretrain_eat.Decoder(32, (4, 8)), torch.tensor([[3, 17]])
    tokens = torch.randn(1, 2, 32)
    told = decoder(tokens, shown)
    assert told.shape == (1, 32, 32)
    assert not torch.allclose(told[0, 4], decoder(tokens + 1, shown)[0, 4])  # beside patch 3


def test_it_learns_and_the_teacher_follows(tower: EatModel) -> None:
    windows = torch.randn(4, 256, 128) + torch.linspace(-2, 2, 4)[:, None, None]
    model = pretrain_eat.Pretraining(tower.train())
    optimizer = torch.optim.AdamW([*model.student.parameters(), *model.decoder.parameters()], 1e-3)
    start, losses = [parameter.clone() for parameter in model.teacher.parameters()], []
    for _ in range(30):
        loss = model(windows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert all(torch.equal(old, new) for old, new in zip(start, model.teacher.parameters(), strict=True))
    model.follow(0.5)
    old, teacher, student = start[-1], list(model.teacher.parameters())[-1], list(model.student.parameters())[-1]
    torch.testing.assert_close(teacher, (old + student) / 2)


def test_it_ends_with_its_time(tower: EatModel, monkeypatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(pretrain_eat.time, "process_time", lambda: next(seconds))  # a step takes a second
    assert pretrain_eat.pretrain(tower, itertools.repeat(torch.randn(2, 256, 128)), minutes=0.1) == 6


def test_the_command_leaves_a_model_with_another_encoder(model, processor, tmp_path: Path, capsys) -> None:
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    with open(tmp_path / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows([["audio", "caption"], ["a.wav", "noise"], ["b.wav", "noise"]])
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    arguments = ["--data", str(tmp_path / "clips.csv"), "--minutes", "0.01", "--output", str(tmp_path / "out")]
    pretrain_eat.main(["--model", str(tmp_path / "model"), *arguments])
    after = MacForConditionalGeneration.from_pretrained(tmp_path / "out")
    for part, same in (("audio_tower", False), ("language_model", True)):
        pairs = zip(getattr(model.model, part).parameters(), getattr(after.model, part).parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs) == same
    with pytest.raises(SystemExit):
        pretrain_eat.main(["--model", str(tmp_path / "model"), "--data", "none.csv", "--output", "x"])
    assert "none.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        pretrain_eat.main(["--model", "x", "--data", "x.csv", "--minutes", "0", "--output", "x"])
    assert "--minutes 0.0: expected more than 0" in capsys.readouterr().err

"""An encoder learns to hear the damaged as it hears the whole, goes on where it was stopped, and leaves a MAC."""

import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import everyday_damage
import harden_everyday
from everyday_bank import load_bank
from everyday_damage import at_rate
from everyday_grammar import Grammar

from modeling_mac import MacForConditionalGeneration
from processing_mac import MacFeatureExtractor, MacProcessor


TAGS = len(Grammar().tags)
FRAMES = 128  # of a window, 1.28 s


@pytest.fixture
def run(table: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs the command; returns its output."""
    monkeypatch.setattr(harden_everyday, "WARMUP", 1)

    def start(*arguments: str, output: str = "out") -> Path:
        paths = ("--model", str(folder), "--data", str(table), "--output", str(tmp_path / output))
        harden_everyday.main([*paths, "--batch", "4", "--workers", "0", "--device", "cpu", *arguments])
        return tmp_path / output

    return start


@pytest.fixture
def pairs(table: Path) -> Callable[..., harden_everyday.Pairs]:
    def make(**changed: Any) -> harden_everyday.Pairs:
        options = {"rows": 8, "batch": 4, "seed": 0, "first": 0, **changed}
        extractor = options.pop("extractor", MacFeatureExtractor(window_frames=FRAMES))
        return harden_everyday.Pairs(load_bank([table], Grammar(), 0), extractor, TAGS, **options)

    return make


@torch.no_grad()
def lost(model: MacForConditionalGeneration, whole: MacForConditionalGeneration, pairs) -> float:
    """Share of the variance of the scores of whole scenes that a model does not tell of damaged ones."""
    head, errors = whole.model.connector.linear_1, []
    for number in range(1000, 1006):
        clean, hurt = pairs.make(number)
        told, aims = (
            head(one.model.audio_tower(windows).last_hidden_state[:, 1:].unflatten(1, (-1, 8)).flatten(2))
            for one, windows in ((model, hurt), (whole, clean))
        )
        errors.append(harden_everyday.relative(told, aims))
    return float(torch.stack(errors).mean())


def test_damage_costs_less_than_before(run: Callable[..., Path], folder: Path, pairs, monkeypatch, capsys) -> None:
    for name, value in (("damage", at_rate), ("UNDAMAGED", 0.0), ("PLAIN", 0.0)):
        monkeypatch.setattr(harden_everyday, name, value)  # one way alone is learnt in a few steps
    output = run("--steps", "40", "--rate", "3e-3", "--share", "1")
    before, after = (MacForConditionalGeneration.from_pretrained(path).eval() for path in (folder, output))
    assert lost(after, before, pairs()) < 0.7 * lost(before, before, pairs())
    old, new = before.state_dict(), after.state_dict()
    learnt = [name for name in old if not torch.equal(old[name].half().float(), new[name])]
    assert learnt and all(name.startswith("model.audio_tower.") for name in learnt)  # what reads the scores stays
    assert after.dtype == torch.float32 and MacProcessor.from_pretrained(output).tokenizer
    assert not (output / "state.pt").exists()
    assert "step 40 " in (printed := capsys.readouterr().out) and "share of the variance lost to damage" in printed


def test_a_stopped_run_ends_like_one_that_was_not(
    run: Callable[..., Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(harden_everyday, "PLAIN", 0.4)  # so that some are among the few
    whole, do_step, calls = run("--steps", "5", output="whole"), harden_everyday.do_step, []

    def stop(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return do_step(*arguments)

    monkeypatch.setattr(harden_everyday, "do_step", stop)
    monkeypatch.setattr(harden_everyday, "SAVED", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run("--steps", "5")
    with pytest.raises(SystemExit):
        run("--steps", "5", "--rate", "1e-3")
    assert "state.pt is of a run with --rate 0.0002, not 0.001; remove it to begin anew" in capsys.readouterr().err
    other = MacForConditionalGeneration.from_pretrained(folder)
    other.model.audio_tower.layers[0].mlp.fc1.bias.data += 1
    kept = folder.rename(tmp_path / "kept")
    shutil.copytree(kept, folder)
    other.save_pretrained(folder)
    with pytest.raises(SystemExit):
        run("--steps", "5")
    assert "state.pt is of a run with an encoder of --model of the digest" in capsys.readouterr().err
    shutil.rmtree(folder)
    kept.rename(folder)
    stopped = run("--steps", "5")
    assert "state.pt: goes on from step 3" in capsys.readouterr().out and len(calls) == 6
    one, other = (MacForConditionalGeneration.from_pretrained(path).state_dict() for path in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_share_of_the_change_is_kept(run: Callable[..., Path], folder: Path) -> None:
    paths = (
        folder,
        run("--steps", "2", "--rate", "0.01", "--share", "1", output="all"),
        run("--steps", "2", "--rate", "0.01", "--share", "0.25", output="part"),
    )
    before, all_of_it, part = (MacForConditionalGeneration.from_pretrained(path).model.audio_tower for path in paths)
    changed = 0.0
    for old, new, kept in zip(before.parameters(), all_of_it.parameters(), part.parameters(), strict=True):
        torch.testing.assert_close(kept, old.lerp(new, 0.25), atol=1e-3, rtol=0)  # weights are saved as float16
        changed = max(changed, float((new - old).detach().abs().max()))
    assert changed > 0.01


def test_it_ends_with_its_time(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []

    def step(run, model, clean, hurt, options, share) -> torch.Tensor:
        shares.append(share)
        run.seconds += 100  # beside what the clock says
        return torch.zeros(2)

    monkeypatch.setattr(harden_everyday, "do_step", step)
    run("--minutes", "5")
    assert shares == pytest.approx([0, 1 / 3, 2 / 3], abs=0.1)


def test_a_loss_that_is_no_number_is_told(run: Callable[..., Path], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(harden_everyday, "do_step", lambda *arguments: torch.tensor([0.1, torch.nan]))
    monkeypatch.setattr(harden_everyday, "SAVED", 0.0)
    for time in (("--steps", "3"), ("--minutes", "0.001")):
        with pytest.raises(SystemExit):
            run(*time)
        assert "The loss is no number at step 1: try a lower --rate." in capsys.readouterr().err
        assert not [*(tmp_path / "out").iterdir()]  # neither a state nor a model


def test_a_batch_is_the_same_whoever_makes_it(pairs) -> None:
    batches = iter(torch.utils.data.DataLoader(pairs(first=2), batch_size=None, num_workers=2))
    for number in (2, 3, 4):
        for here, there in zip(pairs().make(number), next(batches), strict=True):
            torch.testing.assert_close(here, there)  # of one thread there
    assert not torch.equal(pairs(seed=1).make(2)[0], pairs().make(2)[0])


def test_windows_are_whole_or_halves_of_as_much_audio(pairs) -> None:
    made = pairs(rows=16, batch=3, extractor=MacFeatureExtractor(window_frames=256))
    shapes = {made.make(number)[0].shape for number in range(12)}
    assert shapes == {(3, 256, 128), (6, 128, 128)}
    with pytest.raises(ValueError, match=r"^rows of patches are of 0\.16 s here; the model's are not"):
        pairs(rows=16)


def test_a_process_beside_it_may_make_the_scenes(run: Callable[..., Path]) -> None:
    assert (run("--steps", "1", "--workers", "1", "--seed", str(2**40)) / "config.json").is_file()


def test_some_scenes_are_damaged_some_are_not_and_some_are_plain(pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[str] = Counter()

    def damage(wave: np.ndarray, rng: Any) -> np.ndarray:
        made["damaged"] += 1
        return wave + 0.1 * np.sin(np.arange(len(wave), dtype=np.float32))  # some scenes are silent

    def plain_pair(samples: int, rng: Any) -> tuple[np.ndarray, np.ndarray]:
        made["plain"] += 1
        tone = np.sin(np.arange(samples, dtype=np.float32))
        return 0.1 * tone, 0.2 * tone

    monkeypatch.setattr(harden_everyday, "damage", damage)
    monkeypatch.setattr(harden_everyday, "plain_pair", plain_pair)
    batches = pairs(batch=16)
    for number in range(8):
        for clean, hurt in zip(*batches.make(number), strict=True):
            assert clean.isfinite().all() and hurt.isfinite().all()
            made["the same" if torch.equal(clean, hurt) else "another"] += 1
    scenes = made["the same"] + made["another"]
    assert made["another"] == made["damaged"] + made["plain"]
    assert made["plain"] / scenes == pytest.approx(harden_everyday.PLAIN, abs=0.08)
    assert made["the same"] / scenes == pytest.approx(harden_everyday.UNDAMAGED, abs=0.12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "--steps 0: expected more than 0"),
        (("--minutes", "-1"), "--minutes -1.0: expected more than 0"),
        (("--share", "1.5"), "--share 1.5: expected 1 at most"),
        (("--share", "0"), "--share 0.0: expected more than 0"),
        (("--workers", "-1"), "--workers -1 --seed 0: expected 0 or more"),
        (("--threads", "0"), "argument --threads: expected a whole number above 0, not '0'"),
        (("--device", "abacus"), "--device abacus"),
        (("--data", "none.csv"), "none.csv"),
        (("--model", "nowhere"), "--model nowhere: no MAC is there"),
    ],
)
def test_what_is_typed_wrong_is_told_in_a_line(run: Callable[..., Path], arguments, message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        run(*arguments)
    error = capsys.readouterr().err.splitlines()[-1]
    assert " error: " in error and message in error


def test_a_codec_that_is_missing_is_told_before_anything_is_read(
    run: Callable[..., Path], monkeypatch, capsys
) -> None:
    def write(file: Any, wave: Any, rate: int, format: str, **options: Any) -> None:
        raise everyday_damage.soundfile.LibsndfileError(1, f"{format}: ")

    monkeypatch.setattr(everyday_damage.soundfile, "write", write)
    monkeypatch.setattr(harden_everyday, "load_bank", None)
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert re.search(r"error: libsndfile .* knows no MP3 here \(MP3: Format not recog", capsys.readouterr().err)


def test_a_finished_folder_and_a_connector_without_scores_are_told(
    run: Callable[..., Path], folder: Path, tmp_path: Path, capsys, make_config
) -> None:
    output = run("--steps", "1")
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert f"{output} is finished: name another --output" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--steps", "1", output="out/config.json")
    assert "config.json is no folder: name another --output" in capsys.readouterr().err
    MacForConditionalGeneration(make_config(connector_type="stack")).save_pretrained(folder)
    with pytest.raises(SystemExit):
        run("--steps", "1", output="other")
    assert f"{folder}: its `connector_type` is stack" in capsys.readouterr().err

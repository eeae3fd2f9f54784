"""An encoder learns to hear anew, goes on where it was stopped, and leaves a MAC that tells tags."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import everyday_new_encoder
import hear_everyday
from everyday_grammar import Grammar
from everyday_pupil import Components, at_rows, mean_rows
from everyday_training import schedule
from yamnet_torch import Yamnet

from modeling_mac import EatModel, MacForConditionalGeneration
from modeling_mac.connector_mac import CONNECTORS
from processing_mac import MacFeatureExtractor, MacProcessor
from training_mac.objectives.embeddings import EmbeddingPupil
from training_mac.objectives.evidence import EvidenceOfOthers
from training_mac.objectives.teacher_targets import TeacherTargets


RATE = 16_000
FRAMES = 128  # of a window, 1.28 s
TAGS = Grammar().tags
SIZE = ("--batch", "6", "--depth", "2", "--width", "16", "--heads", "2", "--workers", "0", "--device", "cpu")


@pytest.fixture
def run(table: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs the command with a random teacher; returns its output."""

    def load(path: Path, dtype: torch.dtype) -> Yamnet:
        torch.manual_seed(0)
        return Yamnet(dtype).eval()

    monkeypatch.setattr(hear_everyday, "load_yamnet", load)
    for name, value in {"COMPONENTS": 8, "STATISTICS": 2, "WARMUP": 2}.items():
        monkeypatch.setattr(hear_everyday, name, value)

    def start(*arguments: str, output: str = "out", data: Path = table) -> Path:
        paths = ("--model", str(folder), "--data", str(data), "--teacher", "none", "--output", str(tmp_path / output))
        hear_everyday.main([*paths, *SIZE, *arguments])
        return tmp_path / output

    return start


def first_window(wave: np.ndarray) -> torch.Tensor:
    """The normalised log-mels of the first window of a wave, (1, frames, mel bins)."""
    return MacFeatureExtractor(window_frames=FRAMES)(wave.astype(np.float32), RATE)["input_features"][:1]


def scores(model: MacForConditionalGeneration, windows: torch.Tensor) -> torch.Tensor:
    """The scores of the tags in each row, (windows, rows, tags), as the connector tells them."""
    connector = model.model.connector
    tokens = model.model.audio_tower(windows).last_hidden_state[:, 1:]
    return connector.linear_1(connector.arrange(tokens))[..., : len(TAGS)] - EmbeddingPupil.doubt


@torch.no_grad()
def test_it_leaves_a_model_that_tells_tags(run: Callable[..., Path], folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(hear_everyday, "HEAD_RATE", 20.0)  # so that a few steps are enough
    with torch.enable_grad():
        output = run("--steps", "30")
    before, after = (MacForConditionalGeneration.from_pretrained(path) for path in (folder, output))
    assert (after.config.audio_config.num_hidden_layers, after.config.audio_config.hidden_size) == (2, 16)
    assert after.dtype == torch.float32 and MacProcessor.from_pretrained(output).tokenizer
    old, new = before.state_dict(), after.state_dict()
    kept = [name for name in old if not name.startswith(("model.audio_tower", "model.connector.linear_1"))]
    assert "model.connector.linear_2.weight" in kept and len(kept) > 10
    assert all(torch.equal(old[name].half().float(), new[name]) for name in kept)
    layer = after.model.connector.linear_1
    assert not layer.weight[len(TAGS) :].any() and not layer.bias[len(TAGS) :].any()
    time = np.arange(RATE) / RATE
    noise, tone = (
        scores(after, first_window(wave))[0, :6].mean(0)  # a second of eight rows
        for wave in (0.1 * np.random.default_rng(1).standard_normal(RATE), 0.1 * np.sin(2 * np.pi * 2600 * time))
    )
    rain, siren = TAGS.index("rain"), TAGS.index("siren")
    assert noise[rain] > tone[rain] + 1 and tone[siren] > noise[siren]
    assert max(noise[TAGS.index("cow")], tone[TAGS.index("cow")]) < -4  # nobody has heard one
    assert not (output / "state.pt").exists()
    assert "step 30 " in (printed := capsys.readouterr().out) and "told of components 0-4: " in printed


@torch.no_grad()
def test_the_connector_gives_the_scores_of_the_averaged_head(run: Callable[..., Path], monkeypatch) -> None:
    averages, train = [], hear_everyday.train

    def look(training: hear_everyday.Run, *others: Any) -> None:
        with torch.enable_grad():
            train(training, *others)
        torch.nn.init.normal_(training.average.tags.weight, std=0.2)  # what it has learnt so far is next to nothing
        averages.append(training.average)

    monkeypatch.setattr(hear_everyday, "train", look)
    after = MacForConditionalGeneration.from_pretrained(run("--steps", "2"))
    windows = first_window(0.1 * np.random.default_rng(1).standard_normal(RATE))
    expected = averages[0].tags(averages[0](windows))
    assert expected.std(1).mean() > 0.1  # rows differ
    torch.testing.assert_close(scores(after, windows), expected, atol=0.02, rtol=0)  # weights are saved as float16


def test_a_stopped_run_ends_like_one_that_was_not(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    whole, do_step, calls = run("--steps", "5", output="whole"), hear_everyday.do_step, []

    def stop(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return do_step(*arguments)

    monkeypatch.setattr(hear_everyday, "do_step", stop)
    monkeypatch.setattr(hear_everyday, "SAVED", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run("--steps", "5")
    with pytest.raises(SystemExit):
        run("--steps", "5", "--rate", "1e-3")
    assert "state.pt is of a run with --rate 0.0008, not 0.001; remove it to begin anew" in capsys.readouterr().err
    stopped = run("--steps", "5")
    assert "state.pt: goes on from step 3" in capsys.readouterr().out and len(calls) == 6
    one, other = (MacForConditionalGeneration.from_pretrained(path).state_dict() for path in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_ends_with_its_time(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[float] = []

    def step(run, batch, teacher, rate, share, progress) -> torch.Tensor:
        done.append(share)
        run.seconds += 10  # beside what the clock says
        return torch.zeros(())

    monkeypatch.setattr(hear_everyday, "do_step", step)
    assert not (run("--minutes", "0.5") / "untaught").exists()
    assert len(done) == 3 and done[0] == 0 and done == pytest.approx([0, 1 / 3, 2 / 3], abs=0.1)
    assert (run("--minutes", "0.7", output="longer") / "untaught" / "config.json").is_file()  # 40 s of 42


def test_the_rate_is_flat_and_then_falls() -> None:
    course = (hear_everyday.WARMUP, hear_everyday.FLAT, hear_everyday.LAST)
    rates = [schedule(10_000, share, *course) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert rates == pytest.approx([1, 1, 1, 0.51, 0.02])
    assert schedule(299, 0.1, *course) == pytest.approx(0.5)


def test_tags_enter_the_encoder_in_the_last_quarter_alone(run: Callable[..., Path], monkeypatch) -> None:
    entered, missed = [], hear_everyday.Pupil.missed

    def look(pupil, rows, *others) -> torch.Tensor:
        entered.append(rows.requires_grad)
        return missed(pupil, rows, *others)

    monkeypatch.setattr(hear_everyday.Pupil, "missed", look)
    run("--steps", "4")
    assert entered == [False, False, False, True]


@pytest.mark.parametrize("begun", [None, 5, 6, 7], ids=lambda step: f"stopped-{step}")
def test_the_encoder_before_the_tags_is_kept(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: int | None
) -> None:
    """Of eight steps the seventh is the first that teaches tags: what is kept is the average after six."""
    averages, do_step = {}, hear_everyday.do_step

    def step(training: hear_everyday.Run, *others: Any) -> torch.Tensor:
        tower = training.average.audio_tower.state_dict()
        averages[training.step] = {f"model.audio_tower.{name}": value.half().float() for name, value in tower.items()}
        if training.step == begun and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        return do_step(training, *others)

    monkeypatch.setattr(hear_everyday, "do_step", step)
    monkeypatch.setattr(hear_everyday, "SAVED", 0.0)
    if begun is not None:
        with pytest.raises(KeyboardInterrupt):
            run("--steps", "8")
        assert (tmp_path / "out" / "untaught" / "config.json").exists() == (begun >= 6)
    if begun == 7:  # what is there then must stay
        (tmp_path / "out" / "untaught" / "mark").touch()
    output = run("--steps", "8")
    assert (output / "untaught" / "mark").exists() == (begun == 7)
    kept, taught = (
        MacForConditionalGeneration.from_pretrained(path).state_dict() for path in (output / "untaught", output)
    )
    assert all(torch.equal(kept[name], value) for name, value in averages[6].items())
    assert not torch.equal(
        averages[6]["model.audio_tower.layers.0.mlp.fc1.weight"], taught["model.audio_tower.layers.0.mlp.fc1.weight"]
    )
    assert torch.equal(kept["lm_head.weight"], taught["lm_head.weight"])
    assert not (output / "state.pt").exists() and MacProcessor.from_pretrained(output / "untaught").tokenizer


def test_components_are_of_one_variance_whatever_theirs_was() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(5000, 6) * torch.tensor([100.0, 10.0, 1.0, 1.0, 1.0, 0.0]) @ torch.randn(6, 6) + 3
    components = Components(6, 4)
    components.fit(embeddings.split(1000))
    told = components(embeddings)
    torch.testing.assert_close(told.T @ told / 5000, torch.eye(4), atol=0.02, rtol=0)
    assert told.mean(0).abs().max() < 0.02 and components.weights.mean() == pytest.approx(1)
    assert (components.weights.diff() < 0).all()


def test_rows_have_the_embeddings_around_them() -> None:
    seconds = 0.4875 + 0.48 * torch.arange(20.0).view(1, 20, 1)  # each embedding is the second that it is of
    told = at_rows(seconds, 64)[0, :, 0]
    middles = (torch.arange(64) + 0.5) * 0.16
    torch.testing.assert_close(told, middles.clamp(0.4875, 0.4875 + 0.48 * 19))
    assert at_rows(torch.ones(2, 1, 3), 8).shape == (2, 8, 3)


def test_means_of_rows() -> None:
    rows, spans = torch.randn(3, 8, 5), torch.tensor([[0, 0, 8], [2, 3, 4], [1, 2, 6]])
    expected = torch.stack([rows[0].mean(0), rows[2, 3], rows[1, 2:6].mean(0)])
    torch.testing.assert_close(mean_rows(rows, spans), expected)


def test_scores_stand_where_cross_fitting_looks_for_them(folder: Path) -> None:
    model = MacForConditionalGeneration.from_pretrained(folder)
    tower, head = everyday_new_encoder.new_tower(model, depth=1, width=16, heads=2), torch.nn.Linear(8 * 16, 3)
    new = everyday_new_encoder.put_together(model, tower, head)
    targets = TeacherTargets(["man", "rain", "siren"])
    targets.add("a.flac", torch.zeros(1, 4), [(0.0, 0.96, ["rain"])], ["take"])
    evidence = EvidenceOfOthers(new.model, targets, [torch.zeros(1, 3)], {})
    torch.testing.assert_close(evidence.weight, head.weight.detach())
    torch.testing.assert_close(evidence.bias, head.bias.detach(), atol=1e-5, rtol=1e-5)
    assert isinstance(new.model.audio_tower, EatModel) and new.config.audio_config.intermediate_size == 64


@pytest.mark.parametrize("kind", sorted({*CONNECTORS} - {"concat"}))
def test_a_connector_that_reads_other_tokens_is_refused(make_config, kind: str) -> None:
    model = MacForConditionalGeneration(make_config(connector_type=kind))
    with pytest.raises(ValueError, match=f"^its `connector_type` is {kind}; the scores of the tags are told from"):
        everyday_new_encoder.check_model(model, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "--steps 0: expected more than 0"),
        (("--minutes", "-1"), "--minutes -1.0: expected more than 0"),
        (("--width", "18"), "--width 18: expected a multiple of 4 and of --heads 2"),
        (("--workers", "-1"), "--workers -1 --seed 0: expected 0 or more"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--device", "abacus"), "--device abacus"),
        (("--data", "none.csv"), "none.csv"),
    ],
)
def test_what_is_typed_wrong_is_told_in_a_line(run: Callable[..., Path], arguments, message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        run(*arguments)
    error = capsys.readouterr().err.splitlines()[-1]
    assert " error: " in error and message in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audio,group\n0.wav,a\n", "has no column `source`: prepare it by prepare_everyday.py"),
        ("audio,source\nx.wav,dog\n", "1 recordings are missing, the first is"),
        ("audio,source\n0.wav,unicorn\n", "'unicorn' is no kind of everyday_captions.yaml"),
        ("audio,source\n0.wav,rain\n1.wav,dog\n6.wav,silence\n7.wav,\n", "recordings of 2 kinds of sound; expected 3"),
        ("audio,source\n", "recordings of 0 kinds of sound; expected 3"),
    ],
)
def test_a_wrong_table_is_told_in_a_line(run: Callable[..., Path], table: Path, text, message: str, capsys) -> None:
    (table.parent / "wrong.csv").write_text(text)
    with pytest.raises(SystemExit):
        run("--steps", "1", data=table.parent / "wrong.csv")
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_wrong_model_a_finished_folder_and_a_broken_state_are_told(
    run: Callable[..., Path], folder: Path, tmp_path: Path, capsys, make_config
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.pt").write_text("broken")
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "state.pt: cannot be read as a state of this command" in capsys.readouterr().err
    (tmp_path / "out" / "state.pt").unlink()
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "out is finished: name another --output" in capsys.readouterr().err
    (tmp_path / "left" / "untaught").mkdir(parents=True)
    with pytest.raises(SystemExit):
        run("--steps", "1", output="left")
    assert "untaught is of another run: remove it, or name another --output" in capsys.readouterr().err
    MacForConditionalGeneration(make_config()).save_pretrained(folder)
    with pytest.raises(SystemExit):
        run("--steps", "1", output="other")
    assert f"its connector has 32 units; the scores of {len(TAGS)} tags need as many" in capsys.readouterr().err


def test_a_missing_teacher_is_named(table: Path, folder: Path, tmp_path: Path, capsys) -> None:
    paths = ["--model", str(folder), "--data", str(table), "--teacher", "none.tflite", "--output", str(tmp_path / "x")]
    with pytest.raises(SystemExit):
        hear_everyday.main([*paths, *SIZE])
    assert "none.tflite: no such file; expected yamnet.tflite" in capsys.readouterr().err

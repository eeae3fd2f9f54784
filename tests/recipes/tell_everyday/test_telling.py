"""A language model learns to tell honest scores, goes on where it was stopped, and leaves a MAC that captions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import everyday_rows
import everyday_speaker
import numpy as np
import pytest
import soundfile
import tell_everyday
import torch
from everyday_mixed import read_scenes
from everyday_new_encoder import head_of, quiet_padding
from everyday_rows import encode_scenes
from made_scenes import GRAMMAR, RATE, ROWS, TAGS

from modeling_mac import MacForConditionalGeneration
from processing_mac import MacProcessor


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return MacForConditionalGeneration.from_pretrained(folder).state_dict()


def test_it_leaves_a_model_that_captions(run: Callable[..., Path], model: Path, capsys) -> None:
    output = run("--steps", "3", "--bf16", "--threads", str(torch.get_num_threads()))
    old, new = weights(model), weights(output)
    changed = {name for name in old if not torch.equal(old[name].half().float(), new[name])}
    assert not any("audio_tower" in name for name in changed)
    assert {"model.connector.linear_1.weight", "model.connector.linear_2.weight", "lm_head.weight"} <= changed
    assert sorted(path.name for path in output.iterdir() if path.is_dir() or path.suffix == ".pt") == []
    processor, captioner = MacProcessor.from_pretrained(output), MacForConditionalGeneration.from_pretrained(output)
    inputs = processor(np.zeros(RATE, np.float32), sampling_rate=RATE)
    assert captioner.generate(**inputs, max_new_tokens=3).shape[0] == 1 and captioner.dtype == torch.float32
    assert "step 3 " in (printed := capsys.readouterr().out) and "examples/s  loss " in printed
    assert "one: 30 scenes are encoded" in printed and "other: 12 scenes are encoded" in printed


def test_it_learns(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(everyday_speaker, "WARMUP", 5)
    run("--steps", "1")
    first = capsys.readouterr().out
    run("--steps", "60", "--rate", "1e-2", output="longer")
    losses = [float(text.split("loss ")[1].split()[0]) for text in (first, capsys.readouterr().out)]
    assert losses[1] < 0.75 * losses[0]  # the mean from the first step to the last


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["saved-often", "saved-once"])
def test_a_stopped_run_ends_like_one_that_was_not(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys, seconds: float
) -> None:
    monkeypatch.setattr(everyday_speaker, "POOL", 2)  # so that it is stopped in the second pool
    whole, do_step, calls = run("--steps", "6", output="whole"), everyday_speaker.do_step, []

    def stop(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return do_step(*arguments)

    monkeypatch.setattr(everyday_speaker, "do_step", stop)
    monkeypatch.setattr(everyday_speaker, "SAVED", seconds)
    with pytest.raises(KeyboardInterrupt):
        run("--steps", "6")
    with pytest.raises(SystemExit):
        run("--steps", "6", "--rate", "1e-3")
    assert "state.pt is of a run with --rate 0.0015, not 0.001; remove it to begin anew" in capsys.readouterr().err
    monkeypatch.setattr(tell_everyday, "encode_scenes", None)  # what was told of the scenes is kept
    stopped = run("--steps", "6")
    done = 4 if seconds == 0 else 0
    assert f"state.pt: goes on from step {done}" in capsys.readouterr().out and len(calls) == 5 + 6 - done
    one, other = weights(whole), weights(stopped)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_folders_that_are_encoded_stay_so(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, encode = [], tell_everyday.encode_scenes

    def look(model: Any, extractor: Any, scenes: list, seed: list[int]) -> Any:
        asked.append((len(scenes), seed))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return encode(model, extractor, scenes, seed)

    monkeypatch.setattr(tell_everyday, "encode_scenes", look)
    with pytest.raises(KeyboardInterrupt):
        run("--steps", "1")
    run("--steps", "1")
    # All scenes by the encoder that was taught, for their padding, and then those of each folder.
    assert asked == [(42, [0]), (30, [0, 0]), (12, [0, 1]), (12, [0, 1])]


def test_scores_stand_for_tokens(model: Path) -> None:
    """What is learnt from scores is what the connector makes of the tokens that have them."""
    mac, processor = MacForConditionalGeneration.from_pretrained(model), MacProcessor.from_pretrained(model)
    tokens = torch.randn(3, 1 + ROWS * 8, 16)
    weight, bias = head_of(mac, len(TAGS))
    scores = tokens[:, 1:].reshape(3 * ROWS, -1) @ weight + bias
    text = processor.encode([1, 2], answer=["a dog barks", "rain falls"])
    embeds = everyday_speaker.embed(mac, text["input_ids"], scores)
    expected = mac(encoder_hidden_states=tokens, **text).loss
    loss = mac(inputs_embeds=embeds, attention_mask=text["attention_mask"], labels=text["labels"]).loss
    torch.testing.assert_close(loss, expected)


def test_rows_of_windows_are_the_encoder_s(model: Path, scenes: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everyday_rows, "TIMBRE_DB", 0.0)
    mac, processor = MacForConditionalGeneration.from_pretrained(model), MacProcessor.from_pretrained(model)
    [some] = read_scenes(scenes[:1], GRAMMAR, 8)
    encoding = next(encode_scenes(mac, processor.feature_extractor, some[1:2], [0]))
    wave, _ = soundfile.read(some[1].audio, dtype="float32")
    windows = processor.feature_extractor(wave, RATE)["input_features"]
    tokens = mac.model.audio_tower(windows).last_hidden_state[:, 1:]
    expected = tokens.reshape(len(windows) * ROWS, -1)
    torch.testing.assert_close(encoding.rows.float(), expected, atol=2e-3, rtol=2e-3)
    frames = 1 + (len(wave) - 400) // 160
    assert encoding.heard == -(-frames // 16) and encoding.rows.dtype == torch.float16


def test_each_scene_has_a_timbre_of_its_own(model: Path, scenes: list[Path]) -> None:
    mac, processor = MacForConditionalGeneration.from_pretrained(model), MacProcessor.from_pretrained(model)
    [some] = read_scenes(scenes[:1], GRAMMAR, 8)
    first, again, other = (
        list(encode_scenes(mac, processor.feature_extractor, [some[0], some[0]], seed)) for seed in ([0], [0], [1])
    )
    assert torch.equal(first[1].rows, again[1].rows)
    assert not torch.equal(first[0].rows, first[1].rows) and not torch.equal(first[0].rows, other[0].rows)


def test_padding_is_made_quiet_and_what_is_heard_stays(model: Path) -> None:
    mac, rng = MacForConditionalGeneration.from_pretrained(model), torch.Generator().manual_seed(0)
    tags, places = 5, torch.randn(2, 128, generator=rng)  # sounds and padding lie elsewhere
    heard = torch.rand(3000, generator=rng) < 0.7
    rows = places[heard.long()] + 0.2 * torch.randn(3000, 128, generator=rng)
    loud = mac.model.connector.linear_1
    torch.nn.init.normal_(loud.weight, std=0.1)
    torch.nn.init.constant_(loud.bias, 4.0)  # scores of 0 or so
    before = [value.clone() for value in head_of(mac, len(TAGS))]
    quiet_padding(mac, rows, heard, tags)
    after = head_of(mac, len(TAGS))
    old, new = (rows @ weight + bias for weight, bias in (before, after))
    assert old[~heard, :tags].max() > 0
    assert (new - old)[heard, :tags].abs().mean() < 0.15
    assert new[~heard, :tags].mean() < -5.5 and (new[~heard, :tags] < -4.5).float().mean() > 0.95
    assert torch.equal(old[:, tags:], new[:, tags:])


def test_padding_of_which_nothing_is_told_stays(model: Path) -> None:
    mac = MacForConditionalGeneration.from_pretrained(model)
    layer = mac.model.connector.linear_1
    torch.nn.init.constant_(layer.bias, -30.0)
    before = layer.weight.clone()
    quiet_padding(mac, torch.randn(50, 128), torch.arange(50) < 25, len(TAGS))
    assert torch.equal(layer.weight, before) and (layer.bias == -30).all()


def test_it_ends_with_its_time(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def step(run: everyday_speaker.Run, *others: Any) -> torch.Tensor:
        done.append(run.step)
        run.seconds += 10  # beside what the clock says
        return torch.zeros(())

    monkeypatch.setattr(everyday_speaker, "do_step", step)
    run("--minutes", "0.5")
    assert done == [0, 1, 2]


def test_what_else_lies_in_the_output_stays(run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out" / "rows").mkdir(parents=True)
    (tmp_path / "out" / "rows" / "mine.csv").touch()
    assert (run("--steps", "1") / "rows" / "mine.csv").is_file()

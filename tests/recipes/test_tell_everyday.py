"""A language model learns to tell honest scores, goes on where it was stopped, and leaves a MAC that captions."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import everyday_rows
import everyday_speaker
import tell_everyday
from everyday_grammar import Grammar
from everyday_mixed import read_scenes
from everyday_new_encoder import head_of, quiet_padding
from everyday_rows import encode_scenes

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


@pytest.fixture
def model(make_config, tokenizer, tmp_path: Path) -> Path:
    """A folder as hear_everyday.py leaves it."""
    save_model(tmp_path / "model", make_config, tokenizer, seed=0)
    save_model(tmp_path / "model" / "untaught", make_config, tokenizer, seed=1)
    return tmp_path / "model"


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


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    return [mix(tmp_path / "one", 30, 0), mix(tmp_path / "other", 12, 1)]


@pytest.fixture
def run(model: Path, scenes: list[Path], tmp_path: Path) -> Callable[..., Path]:
    """Runs the command with small batches; returns its output."""

    def start(*arguments: str, output: str = "out") -> Path:
        paths = [*map(str, scenes), "--model", str(model), "--output", str(tmp_path / output)]
        tell_everyday.main([*paths, "--batch", "4", *arguments])
        return tmp_path / output

    return start


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


def test_a_loss_that_is_no_number_is_told(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(everyday_speaker, "do_step", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(SystemExit):
        run("--steps", "2")
    assert "The loss is no number at step 2: try a lower --rate" in capsys.readouterr().err


def test_it_ends_with_its_time(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def step(run: everyday_speaker.Run, *others: Any) -> torch.Tensor:
        done.append(run.step)
        run.seconds += 10  # beside what the clock says
        return torch.zeros(())

    monkeypatch.setattr(everyday_speaker, "do_step", step)
    run("--minutes", "0.5")
    assert done == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "--steps 0: expected more than 0"),
        (("--minutes", "-1"), "--minutes -1.0: expected more than 0"),
        (("--threads", "0"), "--threads 0: expected more than 0"),
        (("--seed", "-1"), "--seed -1: expected 0 or more"),
        (("--untaught", "nowhere"), "--untaught nowhere: no MAC is there; expected a folder of hear_everyday.py"),
        (("--model", "nowhere"), "--model nowhere: no MAC is there; expected a folder of hear_everyday.py"),
    ],
)
def test_what_is_typed_wrong_is_told_in_a_line(run: Callable[..., Path], arguments, message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err.splitlines()[-1]


EVENTS = {
    "json": "x",
    "pair": '[["dog", 1.0]]',
    "time": '[["dog", "a", 2]]',
    "number": "5",
    "nothing": "[]",
    "empty": "",
}


def spoil(folder: Path, what: str) -> None:
    """Spoil one thing about a folder of scenes."""
    with open(folder / "scenes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    targets = TeacherTargets.load(folder / "targets.safetensors")
    if what == "folder":
        (folder / "scenes.csv").unlink()
    elif what == "events":
        write(folder / "scenes.csv", [{"audio": row["audio"], "caption_1": "a dog"} for row in rows])
    elif what == "kind":
        write(folder / "scenes.csv", [row | {"events": '[["unicorn", 0.0, 1.0]]'} for row in rows])
    elif what == "scene":
        write(folder / "scenes.csv", [row | {"audio": "strange.flac"} for row in rows])
    elif what == "column":
        write(folder / "scenes.csv", [{name: row[name] for name in ("audio", "events")} for row in rows])
    elif what in EVENTS:
        write(folder / "scenes.csv", [row | {"relation": "single", "events": EVENTS[what]} for row in rows])
    elif what == "relation":
        write(folder / "scenes.csv", [row | {"relation": "beside", "events": '[["dog", 0, 1]]'} for row in rows])
    elif what == "rows":
        (folder / "scenes.csv").write_text("audio,relation,events\n")
    elif what == "targets":
        (folder / "targets.safetensors").unlink()
    elif what == "tags":
        targets.tags[0] = "unicorn"
    elif what == "groups":
        targets.groups[2] = []
    else:
        targets.groups = [[f"take-{number}" for number in range(60)]] * len(targets.files)
    if what in ("tags", "groups", "parts"):
        targets.save(folder / "targets.safetensors")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("folder", "scenes.csv"),
        ("events", "scenes.csv has no column `events`: mix it anew"),
        ("empty", "one-0.flac does not say which recordings it is of, and when: mix it anew"),
        ("kind", "one-0.flac: 'unicorn' is no kind of everyday_captions.yaml"),
        ("scene", "targets.safetensors has nothing of strange.flac: mix it anew"),
        ("rows", "scenes.csv has no scenes"),
        ("targets", "targets.safetensors: no such file; expected the targets of a teacher"),
        ("tags", "one: its tags are not those of everyday_captions.yaml: mix it anew"),
        ("groups", "one-2.flac does not say which recordings it is of: mix it anew"),
        ("parts", "All scenes share parts with some scene; expected recordings of more groups"),
        ("column", "scenes.csv has no column `relation`: mix it anew"),
        ("json", "one-0.flac: `events` is 'x'; expected a list of [kind, first second, end second]"),
        ("pair", "one-0.flac: `events` is '[[\"dog\", 1.0]]'; expected a list"),
        ("time", 'one-0.flac: `events` is \'[["dog", "a", 2]]\'; expected a list'),
        ("number", "one-0.flac: `events` is '5'; expected a list"),
        ("nothing", "scenes.csv, one-0.flac: `relation` is 'single' for a scene of 0: mix it anew"),
        ("relation", "one-0.flac: `relation` is 'beside' for a scene of 1: mix it anew"),
    ],
)
def test_wrong_scenes_are_told_in_a_line(
    run: Callable[..., Path], scenes: list[Path], what: str, message: str, capsys
) -> None:
    spoil(scenes[0], what)
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"connector_type": "time_major"}, "its `connector_type` is time_major; the scores of the tags are told from"),
        ({"connector_hidden_size": 20}, f"its connector has 20 units; the scores of {len(TAGS)} tags need as many"),
        ({"connector_hidden_size": 130}, f"its connector has other units than the scores of {len(TAGS)} tags"),
        ({"audio_config": {"window_frames": 64}}, "its windows have 4 rows of patches, those of --model 8"),
    ],
)
def test_wrong_models_are_told_in_a_line(
    run: Callable[..., Path], model: Path, make_config, tokenizer, fields: dict, message: str, capsys
) -> None:
    if "audio_config" in fields:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        fields = {"audio_config": EatConfig(**sizes, **fields["audio_config"])}
    save_model(model / "untaught", make_config, tokenizer, 1, **fields)
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert f"untaught: {message}" in capsys.readouterr().err.splitlines()[-1]


def test_a_finished_folder_and_a_broken_state_are_told(run: Callable[..., Path], tmp_path: Path, capsys) -> None:
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


def test_other_scenes_than_before_are_told(
    run: Callable[..., Path], scenes: list[Path], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(tell_everyday, "train", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        run("--steps", "1")
    with open(scenes[0] / "scenes.csv", newline="") as file:
        write(scenes[0] / "scenes.csv", list(csv.DictReader(file))[1:])
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "state.pt is of a run with scenes of the digest" in capsys.readouterr().err


def test_another_model_than_before_is_told(
    run: Callable[..., Path], model: Path, make_config, tokenizer, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(tell_everyday, "train", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        run("--steps", "1")
    save_model(model / "untaught", make_config, tokenizer, 7)
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "state.pt is of a run with an encoder of --untaught of the digest" in capsys.readouterr().err


def test_broken_files_are_told_in_a_line(
    run: Callable[..., Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(tell_everyday, "train", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        run("--steps", "1")
    evidence = tmp_path / "out" / "state.rows" / "evidence.pt"
    evidence.write_text("broken")
    with pytest.raises(SystemExit):
        run("--steps", "1")
    assert "evidence.pt: cannot be read as a state of this command; remove it" in capsys.readouterr().err
    evidence.unlink()
    with pytest.raises(SystemExit):  # of the encodings, which were removed, none is taken for one that is there
        run("--steps", "1")
    assert evidence.is_file()
    (model / "model.safetensors").write_text("broken")
    with pytest.raises(SystemExit):
        run("--steps", "1", "--output", str(tmp_path / "other"))
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {model}: " in line


def test_what_else_lies_in_the_output_stays(run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out" / "rows").mkdir(parents=True)
    (tmp_path / "out" / "rows" / "mine.csv").touch()
    assert (run("--steps", "1") / "rows" / "mine.csv").is_file()

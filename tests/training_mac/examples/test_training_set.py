"""Examples repeat from seed, epoch and row, whoever makes them."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from processing_mac.dataset_mac import Clip, read_manifest
from training_mac.examples.training_set import Mixture, TrainingSet
from training_mac.recipe.data_fields import DataRecipe


AUGMENTED = {
    "join_probability": 0.3, "overlay_probability": 0.3, "spec_augment": True, "gain_db": 6.0, "time_shift": True,
}  # fmt: skip


def examples(training_set, workers: int = 0) -> list[dict]:
    return list(DataLoader(training_set, batch_size=None, num_workers=workers))


def same(first: list[dict], second: list[dict]) -> bool:
    return all(
        torch.equal(a["input_features"], b["input_features"]) and a["caption"] == b["caption"]
        for a, b in zip(first, second, strict=True)
    )


def test_workers_processes_and_the_cache_change_nothing(manifest: Path, make_set, tmp_path: Path) -> None:
    alone = make_set(DataRecipe(train_data=str(manifest), **AUGMENTED), seed=1)
    cached = DataRecipe(train_data=str(manifest), cache_features=str(tmp_path / "cache"), **AUGMENTED)
    shared = make_set(cached, seed=1)
    first = examples(alone)
    assert same(first, examples(shared, workers=2))
    for training_set in (alone, shared):
        training_set.set_epoch(1)
    second = examples(alone)
    assert same(second, examples(shared, workers=2)) and not same(first, second)
    assert not same(first, examples(make_set(DataRecipe(str(manifest), **AUGMENTED), seed=2)))
    assert same([second[2]], [alone[2]])  # whatever was drawn before


def test_persistent_workers_see_the_epoch(manifest: Path, make_set) -> None:
    training_set = make_set(DataRecipe(str(manifest), gain_db=6.0), seed=1)
    loader = DataLoader(training_set, batch_size=None, num_workers=1, persistent_workers=True)
    first = list(loader)
    training_set.set_epoch(1)
    assert not same(first, list(loader)) and same(list(loader), examples(training_set))


def test_an_example(manifest: Path, processor, make_set) -> None:
    example = make_set(DataRecipe(str(manifest)), seed=0)[0]
    expected = processor.feature_extractor(str(manifest.parent / "0.wav"))["input_features"]
    torch.testing.assert_close(example["input_features"], expected, atol=2e-3, rtol=0)  # kept in float16
    assert example["caption"] == "the siren wails" and example["prompt"] is None
    assert example["audio"] == str(manifest.parent / "0.wav") and example["spans"] == [(0, 298, "siren")]


def test_every_caption_has_its_turn(manifest: Path, processor) -> None:
    clips = [Clip(str(manifest.parent / "0.wav"), ("one", "two", "three"))]
    training_set = TrainingSet([clips], [1.0], DataRecipe(""), processor, seed=0)
    drawn = []
    for epoch in range(20):
        training_set.set_epoch(epoch)
        drawn.append(training_set[0]["caption"])
    assert set(drawn) == {"one", "two", "three"}


def test_a_mixture_follows_its_weights() -> None:
    mixture = Mixture([4, 10], [2.0, 0.5], seed=0)
    assert len(mixture) == 13
    epochs = [Counter(mixture.row(index, epoch) for index in range(13)) for epoch in range(12)]
    for drawn in epochs:
        assert all(drawn[row] == 2 for row in range(4)) and all(drawn[row] <= 1 for row in range(4, 14))
    assert set().union(*epochs) == set(range(14)) and epochs[0] != epochs[1]
    again = Mixture([4, 10], [2.0, 0.5], seed=0)
    assert [again.row(index, 3) for index in range(13)] == [mixture.row(index, 3) for index in range(13)]


def test_sources_keep_their_prompts(manifest: Path, make_set) -> None:
    sources = [{"path": str(manifest)}, {"path": str(manifest), "prompt": "Who?", "weight": 0.5}]
    prompts = [example["prompt"] for example in examples(make_set(DataRecipe(sources), seed=0))]
    assert prompts == [None] * 4 + ["Who?"] * 2


@pytest.fixture
def damaged(manifest: Path, tmp_path: Path) -> list[Clip]:
    """The second and third recording cannot be read."""
    (tmp_path / "bad.wav").write_bytes(b"noise")
    (tmp_path / "short.wav").write_bytes((manifest.parent / "0.wav").read_bytes()[:60])
    first, *_, last = read_manifest(manifest)
    bad = [Clip(str(tmp_path / name), (name,)) for name in ("bad.wav", "short.wav")]
    return [first, *bad, last]


def test_unreadable_audio_is_an_error_that_names_it(damaged: list[Clip], processor, tmp_path: Path) -> None:
    training_set = TrainingSet([damaged], [1.0], DataRecipe(""), processor, seed=0)
    with pytest.raises(ValueError, match=r"bad.wav.*`skip_bad_audio: true` goes on"):
        training_set[1]
    with pytest.raises(ValueError, match=r"bad.wav cannot be read.*\n.*short.wav cannot be read"):
        TrainingSet([damaged], [1.0], DataRecipe("", cache_features=str(tmp_path / "cache")), processor, seed=0)


@pytest.mark.parametrize("cached", [False, True])
def test_unreadable_audio_is_skipped_and_counted(damaged, cached: bool, processor, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache") if cached else None
    data = DataRecipe("", skip_bad_audio=True, cache_features=cache)
    training_set = TrainingSet([damaged], [1.0], data, processor, seed=0)
    drawn = examples(training_set, workers=2)
    assert [example["audio"] for example in drawn] == [damaged[row].audio for row in (0, 3, 3, 3)]
    training_set.set_epoch(1)
    assert same([drawn[1]], [examples(training_set, workers=2)[1]])
    assert training_set.num_skipped == 2 and training_set.skipped == [damaged[1].audio, damaged[2].audio]


def test_nothing_to_put_together_is_an_error_and_no_endless_search(manifest: Path, processor, monkeypatch) -> None:
    monkeypatch.setattr("training_mac.examples.training_set.MOST_DRAWS", 100)
    clips = [clip for clip in read_manifest(manifest) if clip.source == "rain"]
    with pytest.raises(ValueError, match=r"Found nothing to put together with .*1.wav"):
        TrainingSet([clips], [1.0], DataRecipe("", join_probability=0.1), processor, seed=0)


def test_lengths_group_alike(manifest: Path, processor, tmp_path: Path, make_set) -> None:
    data = DataRecipe(str(manifest), cache_features=str(tmp_path / "cache"))
    lengths = make_set(data, seed=0).lengths
    words = [
        *processor.tokenizer("the siren wails")["input_ids"],
        *processor.tokenizer(processor.default_prompt)["input_ids"],
    ]
    assert len(lengths) == 4 and abs(lengths[0] - processor.audio_tokens_per_window - len(words)) < len(words)
    assert make_set(DataRecipe(str(manifest)), seed=0).lengths == lengths


def test_no_data_is_an_error(make_set) -> None:
    with pytest.raises(ValueError, match="`train_data` is missing"):
        make_set(DataRecipe(""), seed=0)


def test_what_stands_in_for_bad_audio_fits_too(manifest: Path, processor, tmp_path: Path) -> None:
    """Neither "the siren, followed by the siren" nor a siren and silence, though these come next in the manifest."""
    siren, rain, *_ = read_manifest(manifest)
    (tmp_path / "bad.wav").write_bytes(b"noise")
    bad = Clip(str(tmp_path / "bad.wav"), ("bad",), (), "bell")
    other = Clip(str(manifest.parent / "2.wav"), ("another siren",), (), "siren")
    silence = Clip(str(manifest.parent / "3.wav"), ("silence",), (), "nothing", scene="silence")
    for next_one in (other, silence):
        clips = [siren, bad, next_one, rain]
        data = DataRecipe("", join_probability=1.0, skip_bad_audio=True)
        training_set = TrainingSet([clips], [1.0], data, processor, seed=0)
        met = []
        for epoch in range(12):
            training_set.set_epoch(epoch)
            met.append({source for *_, source in training_set[0]["spans"]})
        assert all(sources == {"siren", "rain"} for sources in met)
        assert training_set.num_skipped == 1


def test_without_anything_readable_to_put_together_it_is_said(manifest: Path, processor, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"noise")
    clips = [read_manifest(manifest)[0], Clip(str(tmp_path / "bad.wav"), ("bad",), (), "bell")]
    training_set = TrainingSet([clips], [1.0], DataRecipe("", join_probability=1.0, skip_bad_audio=True), processor, 0)
    with pytest.raises(ValueError, match=r"Nothing that could be put together with .*0.wav can be read"):
        training_set[0]

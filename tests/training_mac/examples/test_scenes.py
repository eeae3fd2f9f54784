"""Scenes say truly what sounds in them."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from processing_mac import MacFeatureExtractor
from processing_mac.dataset_mac import Clip
from training_mac.examples.scenes import SceneMaker, begin_clause, may_meet
from training_mac.recipe.data_fields import DataRecipe


DOG = Clip("dog.wav", ("a dog barks.",), ("the bark of a dog",), "dog")
RAIN = Clip("rain.wav", ("Rain falls.",), ("falling rain",), "rain")


def maker(**fields) -> SceneMaker:
    return SceneMaker(DataRecipe("", **fields), MacFeatureExtractor())


def level(value: float, frames: int = 500) -> torch.Tensor:
    return torch.full((frames, 128), value)


def test_joined_recordings_follow_each_other() -> None:
    scene = maker().joined((DOG, level(1)), (RAIN, level(2, 700)), np.random.default_rng(0))
    assert scene.caption == "a dog barks, followed by falling rain"
    assert scene.spans == [(0, 500, "dog"), (500, 1200, "rain")]
    assert scene.log_mel[:500].eq(1).all() and scene.log_mel[500:].eq(2).all()


def test_without_phrases_the_caption_goes_on() -> None:
    rain = Clip("rain.wav", ("Rain falls.",))
    scene = maker().joined((DOG, level(1)), (rain, level(2)), np.random.default_rng(0))
    assert scene.caption == "a dog barks, then rain falls."


@pytest.mark.parametrize(
    ("caption", "clause"), [("A dog", "a dog"), ("I hear", "I hear"), ("TV is on", "TV is on"), ("Is it", "is it")]
)
def test_only_a_sentence_loses_its_capital(caption: str, clause: str) -> None:
    assert begin_clause(caption) == clause


def test_overlaid_recordings_are_both_there() -> None:
    scene = maker().overlaid((DOG, level(1)), (RAIN, level(2)), np.random.default_rng(0))
    assert scene.caption == "a dog barks while rain falls."
    assert [span[2] for span in scene.spans] == ["dog", "rain"] and scene.spans[0][:2] == scene.spans[1][:2]
    assert scene.log_mel.min() > 1


def test_a_background_is_faint_and_goes_untold() -> None:
    for seed in range(20):
        scene = maker().background((DOG, level(1)), (RAIN, level(5)), np.random.default_rng(seed))
        assert scene.caption == "a dog barks." and scene.spans == [(0, 500, "dog")]
        added = 10 * math.log10(math.expm1(scene.log_mel.mean().item() - 1))  # dB of the second over the first
        assert -25 <= added <= -10


def test_the_kinds_come_as_often_as_asked() -> None:
    scenes = maker(join_probability=0.2, overlay_probability=0.1, background_probability=0.4)
    rng = np.random.default_rng(0)
    kinds = Counter(scenes.draw_kind(DOG, rng) for _ in range(2000))
    assert {kind: round(count / 2000, 1) for kind, count in kinds.items()} == {
        "joined": 0.2, "overlaid": 0.1, "background": 0.4, "single": 0.3,
    }  # fmt: skip


def test_no_switch_changes_nothing() -> None:
    extractor, log_mel = MacFeatureExtractor(), torch.randn(1500, 128)
    scenes, rng = maker(), np.random.default_rng(0)
    example = scenes.example(scenes.single((DOG, log_mel.half()), rng), DOG, rng)
    assert torch.equal(example["input_features"], extractor.to_windows(log_mel.half().float()))
    assert example["input_features"].shape == (2, 1024, 128) and example["audio"] == "dog.wav"


def test_every_window_is_masked() -> None:
    scenes, rng = maker(spec_augment=True), np.random.default_rng(0)
    log_mel = torch.randn(2048, 128)
    windows = scenes.example(scenes.single((DOG, log_mel), rng), DOG, rng)["input_features"]
    changed = windows != scenes.extractor.to_windows(log_mel)
    assert changed[0].any() and changed[1].any()


def test_max_windows_bounds_alone_and_joined() -> None:
    scenes, rng = maker(max_windows=1), np.random.default_rng(0)
    assert len(scenes.single((DOG, level(1, 3000)), rng).log_mel) == 1024
    scene = scenes.joined((DOG, level(1, 3000)), (RAIN, level(2)), rng)
    assert len(scene.log_mel) == 1024 and scene.spans[-1][1] == 1024


def test_a_short_recording_is_repeated() -> None:
    scene = maker(repeat_probability=1.0).single((DOG, level(1, 300)), np.random.default_rng(0))
    assert len(scene.log_mel) == 1024 and scene.log_mel.eq(1).all()


def test_silence_stays_alone_and_as_it_is() -> None:
    silence = Clip("s.wav", ("no sound",), (), "nothing", scene="silence")
    scenes = maker(join_probability=1.0, gain_db=6.0, time_shift=True, min_excerpt=0.5)
    rng = np.random.default_rng(0)
    assert scenes.draw_kind(silence, rng) == "single" and scenes.draw_kind(DOG, rng) == "joined"
    assert torch.equal(scenes.vary((silence, level(-9)), rng), level(-9))
    called_so = Clip("n.wav", ("nobody speaks",), (), "silence")  # a word of somebody's own
    assert scenes.draw_kind(called_so, rng) == "joined" and may_meet(DOG, called_so)
    assert not may_meet(DOG, silence) and may_meet(DOG, RAIN) and not may_meet(DOG, DOG)
    assert not may_meet(DOG, Clip("other.wav", ("a dog",), (), "dog"))


@pytest.mark.parametrize("kind", ["overlaid", "background"])
def test_the_number_of_threads_changes_no_bit(kind: str) -> None:
    threads, scenes = torch.get_num_threads(), maker(spec_augment=True)
    generator = torch.Generator().manual_seed(0)
    recordings = [(clip, torch.randn(1000, 128, generator=generator)) for clip in (DOG, RAIN)]
    made = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            rng = np.random.default_rng(0)
            made.append(scenes.example(getattr(scenes, kind)(*recordings, rng), DOG, rng)["input_features"])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*made)


def test_some_is_heard_of_all_that_is_told() -> None:
    """A first recording as long as the room must not push the second one out of the scene and into its caption."""
    scenes, rng = maker(max_windows=1), np.random.default_rng(0)
    scene = scenes.joined((DOG, level(1, 1024)), (RAIN, level(2, 500)), rng)
    assert scene.spans == [(0, 768, "dog"), (768, 1024, "rain")] and scene.log_mel[768:].eq(2).all()
    assert scenes.joined((DOG, level(1, 1024)), (RAIN, level(2, 9)), rng).spans[1] == (1015, 1024, "rain")


def test_recordings_without_a_path_may_meet() -> None:
    sounds = [Clip({"array": np.zeros(8000), "sampling_rate": 16_000}, ("x",)) for _ in range(2)]
    assert may_meet(*sounds) and not may_meet(sounds[0], sounds[0])

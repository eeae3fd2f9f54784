"""A keep rate that falls while the encoder learns."""

import json
from types import SimpleNamespace

import pytest

from modeling_mac import EatConfig, WhisperTowerConfig
from training_mac.loop.pruning import KeepRateSchedule, check_encoder, check_keep_rates
from training_mac.recipe.fields import Recipe


def test_the_rate_falls_along_half_a_cosine_and_stays():
    config = EatConfig()
    schedule = KeepRateSchedule(config, 0.6, (0.25, 0.75))
    rates = []
    for step in (0, 25, 50, 75, 99):
        schedule.on_step_begin(None, SimpleNamespace(global_step=step, max_steps=100), None)
        rates.append(config.keep_rate)
    assert rates == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.6])


def test_a_run_saves_the_rate_that_it_learnt_with(write_recipe, train):
    stages = [
        {"objective": "tags", "kept_patches": 32, "keep_rate": 0.5, "keep_rate_span": [0.0, 0.5]},
        {"objective": "captions"},
    ]
    folder = train(write_recipe(stages=stages, eval_strategy="no"))
    config = json.loads((folder / "config.json").read_text())
    assert config["audio_config"]["keep_rate"] == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep_rate": 0.0}, r"`keep_rate` is 0.0; expected a share"),
        ({"keep_rate": 0.5, "keep_rate_span": [0.8, 0.2]}, r"`keep_rate_span` is \[0.8, 0.2\]; expected two shares"),
        ({"keep_rate": 0.5, "objective": "teacher"}, r"`objective: teacher` has none"),
        ({"keep_rate": 0.5, "cached_epochs": 1, "encoder": "frozen"}, r"`cached_epochs` cannot keep it"),
        ({"keep_rate": 0.5, "encoder": "lora", "language_model": "frozen"}, r"add `merge_adapter: true`"),
    ],
)
def test_schedules_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        check_keep_rates([Recipe(**fields)])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (WhisperTowerConfig(), r"an encoder that prunes, 'mac_eat'; this one is 'mac_whisper'"),
        (EatConfig(pruned_tokens="sequence"), r"`pruned_tokens` is 'sequence'.*train with 'grid'"),
    ],
)
def test_encoders_that_cannot_follow_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        check_encoder(config, [Recipe(keep_rate=0.5)])

"""Steps that a dry run times."""

from types import SimpleNamespace

import pytest

from modeling_mac import MacConfig
from study_mac import timing


@pytest.fixture
def config() -> MacConfig:
    audio = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    text = {"hidden_size": 32, "num_hidden_layers": 5, "num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1,
            "vocab_size": 300}  # fmt: skip
    return MacConfig(audio_config={**audio, "window_frames": 64}, text_config=text, audio_token_id=2)


def stage(**fields):
    recipe = SimpleNamespace(**{"encoder": "full", "connector": "full", "language_model": "full", "lora_rank": 8,
                                "lora_targets": [], "cached_epochs": 0, **fields})  # fmt: skip
    return SimpleNamespace(recipe=recipe, training=SimpleNamespace(per_device_train_batch_size=2))


def test_the_depths_of_a_large_model_are_counted_once_each(config, monkeypatch) -> None:
    seen = []

    def step(config, stages, text, bf16, on_cpu):
        depths = config.audio_config.num_hidden_layers, config.text_config.num_hidden_layers
        seen.append(depths)
        return 10 + 2 * depths[0] + 0.5 * depths[1]

    monkeypatch.setattr(timing, "KNOWN", {})
    monkeypatch.setattr(timing, "step_seconds", step)
    assert timing.clip_seconds(config, [stage()], 5, False, False) == pytest.approx(10 + 2 * 3 + 0.5 * 5)
    assert (config.audio_config.num_hidden_layers, config.text_config.num_hidden_layers) == (3, 5)
    timing.clip_seconds(config, [stage()], 5, False, False)
    assert seen == [(1, 1), (2, 1), (1, 2)]  # what was timed once is known
    timing.clip_seconds(config, [stage(encoder="frozen")], 5, True, False)
    assert seen[3:] == [(3, 5)]


def test_a_step_is_run_also_with_kept_encodings(config, monkeypatch) -> None:
    monkeypatch.setattr(timing, "attach_adapter", lambda model, recipes: model)
    monkeypatch.setattr(timing, "set_trainable", lambda model, recipe: None)
    heard = []
    forward = timing.MacForConditionalGeneration.forward

    def noting(self, **given):
        heard.append({name for name in given if name in ("input_features", "encoder_hidden_states")})
        return forward(self, **given)

    monkeypatch.setattr(timing.MacForConditionalGeneration, "forward", noting)
    assert timing.step_seconds(config, [stage()], 5, False, 2) > 0
    assert timing.step_seconds(config, [stage(cached_epochs=1, encoder="frozen")], 5, False, 2) > 0
    assert heard == 3 * [{"input_features"}] + 3 * [{"encoder_hidden_states"}]

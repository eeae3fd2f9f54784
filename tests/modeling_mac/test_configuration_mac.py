import re

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig, Mamba2Config

from modeling_mac import EatConfig, MacConfig


def test_eat_defaults_are_eat_base():
    config = EatConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert config.layer_norm_eps == 1e-6
    assert config.grid == (64, 8)


def test_mac_defaults_are_eat_base_and_mamba2_130m():
    config = MacConfig()
    assert type(config.audio_config) is EatConfig
    assert type(config.text_config) is Mamba2Config
    assert config.get_text_config() is config.text_config
    assert (config.text_config.hidden_size, config.text_config.vocab_size) == (768, 50288)
    assert config.audio_token_id == 50277


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"hidden_size": 30, "num_attention_heads": 4},
            "`hidden_size` (30) must be a multiple of `num_attention_heads`",
        ),
        ({"hidden_size": 6, "num_attention_heads": 2}, "must be a multiple of 4"),
        ({"window_frames": 1000}, "`window_frames` (1000) must be a multiple of `patch_size` (16)"),
        ({"num_mel_bins": 80, "patch_size": 32}, "`num_mel_bins` (80) must be a multiple of `patch_size` (32)"),
    ],
)
def test_eat_refuses_sizes_that_do_not_divide(wrong, message):
    with pytest.raises(StrictDataclassClassValidationError, match=re.escape(message)):
        EatConfig(**wrong)


def test_mac_refuses_an_unknown_connector():
    with pytest.raises(StrictDataclassClassValidationError, match=r"'sum'.*concat"):
        MacConfig(connector_type="sum")


def test_an_audio_config_without_a_kind_is_an_eat():
    assert MacConfig(audio_config={"hidden_size": 24}).audio_config.to_dict() == EatConfig(hidden_size=24).to_dict()


def test_mac_refuses_an_unknown_tower():
    with pytest.raises(ValueError, match=r"`audio_config.model_type` is 'mac_clap'; expected one of \('mac_eat'"):
        MacConfig(audio_config={"model_type": "mac_clap"})


def test_mac_refuses_an_audio_token_outside_the_vocabulary():
    with pytest.raises(StrictDataclassClassValidationError, match=r"`audio_token_id` \(64\).*64 rows"):
        MacConfig(text_config=Mamba2Config(vocab_size=64), audio_token_id=64)


@pytest.mark.parametrize(
    ("connector", "run", "window"),
    [("concat", 64, 64), ("time_major", 8, 512), ("frequency_major", 64, 512), ("mean_pool", 32, 32)],
)
def test_audio_token_counts(connector, run, window):
    config = MacConfig(connector_type=connector)
    assert config.audio_tokens_per_run == run
    assert config.audio_tokens_per_window == window


def test_audio_token_counts_follow_the_window():
    config = MacConfig(audio_config=EatConfig(window_frames=512), connector_type="time_major")
    assert config.audio_tokens_per_window == 256


def test_sub_configs_may_be_dicts_of_any_language_model():
    config = MacConfig(
        audio_config={"hidden_size": 32, "num_attention_heads": 2},
        text_config={"model_type": "gpt_neox", "vocab_size": 60000, "hidden_size": 16, "num_attention_heads": 2},
    )
    assert config.audio_config.hidden_size == 32
    assert config.text_config.model_type == "gpt_neox"


def test_round_trip_through_a_folder(tmp_path):
    config = MacConfig(
        audio_config=EatConfig(hidden_size=32, num_attention_heads=2, drop_path_rate=0.1),
        text_config=Mamba2Config(vocab_size=64, hidden_size=32, num_heads=8, head_dim=8),
        connector_type="mean_pool",
        connector_hidden_size=24,
        audio_token_id=63,
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is MacConfig
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()

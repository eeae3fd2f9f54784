"""Whisper's encoder as a tower: transformers' own output, its released folders, and a captioner on it."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoModel, WhisperConfig, WhisperForConditionalGeneration, WhisperModel

from modeling_mac import EatConfig, MacConfig, MacForConditionalGeneration, WhisperTowerConfig, WhisperTowerModel


SIZES = {
    "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "num_mel_bins": 80,
    "max_source_positions": 40,
}  # fmt: skip


@pytest.fixture
def released(tmp_path):
    """A small Whisper in the form of the Hub, decoder and all."""
    torch.manual_seed(0)
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "vocab_size": 60}
    tokens = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
    model = WhisperForConditionalGeneration(WhisperConfig(**SIZES, **decoder, **tokens)).eval()
    model.save_pretrained(tmp_path / "whisper")
    return model, tmp_path / "whisper"


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randn(2, 80, 80, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def captioner(released, mamba2_folder) -> MacForConditionalGeneration:
    return MacForConditionalGeneration.from_towers(
        released[1], mamba2_folder, audio_token_id=63, connector_type="stack", stack_size=4
    ).eval()


def test_grid_tokens_are_the_encoders_and_the_first_is_their_mean(captioner, released, windows):
    expected = released[0].model.encoder(windows.transpose(1, 2)).last_hidden_state
    output = captioner.model.audio_tower(windows)
    assert torch.equal(output.last_hidden_state[:, 1:], expected)
    assert torch.equal(output.last_hidden_state[:, 0], expected.mean(dim=1))


def test_a_tower_records_what_its_blocks_give(captioner, windows):
    output = captioner.model.audio_tower(windows, output_hidden_states=True)
    assert [hidden.shape for hidden in output.hidden_states] == [(2, 40, 32)] * 3


def test_a_bare_whisper_model_is_a_tower_too(released, mamba2_folder, tmp_path):
    WhisperModel.from_pretrained(released[1]).save_pretrained(tmp_path / "bare")
    model = MacForConditionalGeneration.from_towers(
        tmp_path / "bare", mamba2_folder, audio_token_id=63, connector_type="stack"
    )
    expected = released[0].model.encoder.state_dict()
    assert model.model.audio_tower.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in model.model.audio_tower.state_dict().items())


def test_weights_of_a_whisper_without_its_configuration_are_refused(released, mamba2_folder):
    (released[1] / "config.json").unlink()
    with pytest.raises(ValueError, match=r"weights of a Whisper, but its config.json names the kind None"):
        MacForConditionalGeneration.from_towers(released[1], mamba2_folder, audio_token_id=63)


def test_a_saved_captioner_and_a_saved_tower_load_as_they_were(captioner, windows, tmp_path):
    captioner.save_pretrained(tmp_path / "mac")
    loaded = MacForConditionalGeneration.from_pretrained(tmp_path / "mac").eval()
    assert type(loaded.config.audio_config) is WhisperTowerConfig
    assert torch.equal(
        loaded.get_audio_features(windows).pooler_output, captioner.get_audio_features(windows).pooler_output
    )
    captioner.model.audio_tower.save_pretrained(tmp_path / "tower")
    tower = AutoModel.from_pretrained(tmp_path / "tower").eval()
    assert type(tower) is WhisperTowerModel
    assert torch.equal(tower(windows)[0], captioner.model.audio_tower(windows)[0])


def test_a_new_tower_starts_from_whispers_positions():
    tower = WhisperTowerModel(WhisperTowerConfig(**SIZES))
    assert torch.equal(tower.embed_positions.weight[0], torch.cat([torch.zeros(16), torch.ones(16)]))


def test_a_captioner_on_speech_generates(captioner, windows):
    assert captioner.config.audio_tokens_per_window == 10
    inputs = {"input_ids": torch.tensor([[63] * 10 + [5]] * 2), "attention_mask": torch.ones(2, 11, dtype=torch.long)}
    assert captioner.generate(**inputs, input_features=windows, max_new_tokens=3).shape == (2, 14)


def test_windows_of_another_length_are_refused(captioner, windows):
    with pytest.raises(ValueError, match=r"shape \(2, 60, 80\); expected \(windows, 80, 80\)"):
        captioner.model.audio_tower(windows[:, :60])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"connector_type": "stack", "stack_size": 7}, r"'stack' makes one token of 7 time steps.*'mac_whisper'.*40"),
        ({"connector_type": "stack", "stack_size": 0}, r"'stack' makes one token of 0 time steps"),
    ],
)
def test_a_stack_that_does_not_divide_is_refused(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        MacConfig(audio_config=WhisperTowerConfig(**SIZES), **fields)


def test_an_odd_grid_is_refused_by_pooling_in_pairs():
    with pytest.raises(StrictDataclassClassValidationError, match=r"'mean_pool' makes one token of 2 .*'mac_eat'.*7"):
        MacConfig(audio_config=EatConfig(window_frames=112), connector_type="mean_pool")

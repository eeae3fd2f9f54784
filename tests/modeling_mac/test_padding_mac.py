"""Windows that are not full are encoded as far as they are heard, each as if it were alone."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_mac import EatConfig, MacConfig, MacForConditionalGeneration
from modeling_mac.padding_mac import count_columns
from processing_mac import MacFeatureExtractor


SILENCE = -1.2768  # what a cell of digital silence is


@pytest.fixture
def model() -> MacForConditionalGeneration:
    torch.manual_seed(0)
    audio = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1,
            "vocab_size": 40}  # fmt: skip
    config = MacConfig(audio_config={**audio, "window_frames": 256, "padding_columns": 1}, text_config=text,
                       audio_token_id=39)  # fmt: skip
    return MacForConditionalGeneration(config).eval()


def windows(*frames: int) -> torch.Tensor:
    """Windows of 256 frames of which so many are heard."""
    features = torch.randn(len(frames), 256, 128, generator=torch.Generator().manual_seed(1))
    for window, heard in zip(features, frames, strict=True):
        window[heard:] = EatConfig().padding_cell
    return features


def test_columns_are_those_that_are_heard_and_some_of_padding(model) -> None:
    config = model.config.audio_config
    heard = (0, 1, 16, 17, 48, 49, 200, 256)
    assert count_columns(windows(*heard), config).tolist() == [4, 4, 4, 4, 4, 8, 16, 16]
    assert count_columns(windows(17).bfloat16(), config).tolist() == [4]
    broken = windows(17)
    broken[0, 200, 3] = torch.nan
    assert count_columns(broken, config).tolist() == [16], "what is no number is not hidden"
    silence = windows(256)
    silence[0, 20:] = SILENCE
    assert count_columns(silence, config).tolist() == [16], "digital silence was recorded"


def test_the_extractor_s_padding_is_known(model) -> None:
    extractor = MacFeatureExtractor(window_frames=256)
    sound = torch.randn(16_000, generator=torch.Generator().manual_seed(2)).numpy()
    features = extractor([0.1 * sound, 0 * sound], sampling_rate=16_000)["input_features"]
    assert count_columns(features, model.config.audio_config).tolist() == [8, 8]  # 98 frames, 7 columns


@torch.no_grad()
def test_a_window_is_encoded_as_a_shorter_one(model) -> None:
    features, tower = windows(40, 256, 100, 40), model.model.audio_tower
    encoded = model.get_audio_features(features)
    expected = tower(features[:1, :64]).last_hidden_state
    torch.testing.assert_close(encoded.last_hidden_state[:1, : 1 + 4 * 8], expected)
    rest = encoded.last_hidden_state[0, 1 + 4 * 8 :].view(12, 8, -1)
    torch.testing.assert_close(rest, expected[0, -8:].expand(12, -1, -1), msg="the last column stands for the others")
    torch.testing.assert_close(encoded.last_hidden_state[1:2], tower(features[1:2]).last_hidden_state)
    torch.testing.assert_close(encoded.pooler_output, model.model.connector(encoded.last_hidden_state[:, 1:]))
    for number in range(len(features)):  # in a batch as alone
        alone = model.get_audio_features(features[number : number + 1])
        torch.testing.assert_close(alone.last_hidden_state[0], encoded.last_hidden_state[number])


def test_windows_are_whole_in_training_in_graphs_and_where_patches_are_pruned(model, monkeypatch) -> None:
    features, tower = windows(40), model.model.audio_tower
    whole = tower(features).last_hidden_state
    torch.testing.assert_close(model.get_audio_features(features).last_hidden_state, whole)  # with gradients
    with torch.no_grad():
        short = model.get_audio_features(features).last_hidden_state
        assert not torch.allclose(short, whole, atol=1e-3)
        asked = model.get_audio_features(features, output_hidden_states=True)
        torch.testing.assert_close(asked.last_hidden_state, whole)
        with monkeypatch.context() as patch:
            patch.setattr(torch.jit, "is_tracing", lambda: True)
            torch.testing.assert_close(model.get_audio_features(features).last_hidden_state, whole)
        tower.config.keep_rate = 0.5
        torch.testing.assert_close(model.get_audio_features(features).last_hidden_state, tower(features)[0])
        tower.config.keep_rate, tower.config.padding_columns = 1.0, None
        torch.testing.assert_close(model.get_audio_features(features).last_hidden_state, whole)


@pytest.mark.parametrize("shape", [(1, 250, 128), (1, 256, 64), (16, 128)])
@torch.no_grad()
def test_wrong_shapes_are_told_as_by_the_encoder(model, shape) -> None:
    features = torch.randn(shape)
    with pytest.raises(ValueError) as expected:
        model.model.audio_tower(features)
    with pytest.raises(ValueError) as found:
        model.get_audio_features(features)
    assert str(found.value) == str(expected.value)


def test_columns_cannot_be_negative() -> None:
    with pytest.raises(StrictDataclassError, match="`padding_columns` is -1; expected 0 or more, or None"):
        EatConfig(padding_columns=-1)

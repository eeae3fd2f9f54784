"""CLAP-Refine with a tiny random CLAP."""

import numpy as np
import pytest
import soundfile
from transformers import ClapFeatureExtractor, ClapModel

from evaluation_mac.protocols.clap_refine import Clap, caption_refined, refine


@pytest.fixture
def clap(clap_folder) -> Clap:
    return Clap(clap_folder)


@pytest.fixture
def recording(tmp_path, sound) -> str:
    soundfile.write(tmp_path / "clip.wav", sound(2, rate=48_000), 48_000)
    return str(tmp_path / "clip.wav")


def test_a_long_recording_is_a_mean_of_pieces(clap, clap_folder, recording):
    waveform = soundfile.read(recording, dtype="float32")[0]
    extractor, model = ClapFeatureExtractor.from_pretrained(clap_folder), ClapModel.from_pretrained(clap_folder).eval()
    pieces = [
        model.get_audio_features(**extractor(piece, sampling_rate=48_000, return_tensors="pt")).pooler_output[0]
        for piece in (waveform[:48_000], waveform[48_000:])
    ]
    mean = sum(pieces).detach().numpy()
    np.testing.assert_allclose(clap.embed_audio(recording), mean / np.linalg.norm(mean), atol=1e-5)


def test_the_closest_caption_is_kept(clap, recording):
    candidates = ["a dog barks", "the cat sleeps", "rain", "a dog is in the rain"]
    similarity = [float(clap.embed_text([text])[0] @ clap.embed_audio(recording)) for text in candidates]
    assert refine(clap, recording, candidates) == candidates[int(np.argmax(similarity))]
    assert refine(clap, recording, ["rain", "rain"]) == "rain"


def test_decodes_with_two_to_eight_beams(clap, recording):
    """The captioner says another number of words for each number of beams."""
    asked = []

    def captioner(audio: str, num_beams: int) -> list[dict[str, str]]:
        asked.append(num_beams)
        return [{"caption": "dog " * num_beams}]

    caption = caption_refined(captioner, clap, recording)
    assert asked == [2, 3, 4, 5, 6, 7, 8]
    assert caption == refine(clap, recording, ["dog " * beams for beams in asked])


def test_a_model_that_cannot_hear(bert_folder):
    with pytest.raises(ValueError, match="'bert' model; expected a CLAP"):
        Clap(bert_folder)

"""CLAP-Refine with a tiny random CLAP."""

import numpy as np
import pytest
import soundfile
from transformers import ClapFeatureExtractor, ClapModel

from evaluation_mac.protocols.clap_refine import Clap, ClapRefine
from processing_mac import AudioCaptioningPipeline


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
    caption, found = ClapRefine(clap).choose(recording, candidates)
    assert caption == candidates[int(np.argmax(similarity))]
    assert found == pytest.approx(similarity, abs=1e-4)
    assert ClapRefine(clap).choose(recording, ["rain", "rain"])[0] == "rain"


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


def test_searches_with_two_to_eight_beams(clap, captioner, recording):
    """What one reading gives is what seven passes over the recording give."""
    captioner.model.generation_config.max_new_tokens = 20
    answer = ClapRefine(clap).caption(captioner, recording)
    expected = [captioner(recording, num_beams=beams)[0]["caption"] for beams in range(2, 9)]
    assert len(set(expected)) > 1 and answer["candidates"] == expected
    assert answer["caption"] == expected[int(np.argmax(answer["similarities"]))]
    assert len(answer["similarities"]) == 7


@pytest.mark.parametrize("default", [True, False])
def test_a_prompt_with_text_before_the_audio(clap, captioner, recording, default):
    """Of the model or of the command: the text is heard before the recording, as it is without CLAP-Refine."""
    before = "a dog barks <|audio|> rain falls"
    captioner.processor.default_prompt = before if default else "a bell rings"
    model = {"model": captioner.model, "processor": captioner.processor, "device": "cpu"}
    asked = AudioCaptioningPipeline(**model, prompt=None if default else before)
    expected = [asked(recording, num_beams=beams)[0]["caption"] for beams in range(2, 9)]
    assert ClapRefine(clap).caption(asked, recording)["candidates"] == expected
    asked = AudioCaptioningPipeline(
        captioner.model, processor=captioner.processor, device="cpu", prompt="a bird sings"
    )
    found = ClapRefine(clap, "nbest", num_beams=2).caption(asked, recording)["candidates"]
    assert found[0] == asked(recording, num_beams=2)[0]["caption"] != expected[0]


def test_the_best_of_one_search(clap, captioner, recording):
    answer = ClapRefine(clap, "nbest", num_beams=4).caption(captioner, recording)
    assert len(set(answer["candidates"])) == len(answer["similarities"]) == 4
    assert answer["candidates"][0] == captioner(recording, num_beams=4)[0]["caption"]
    assert len(ClapRefine(clap, "nbest").caption(captioner, recording)["candidates"]) == 8


def test_a_model_that_cannot_hear(bert_folder):
    with pytest.raises(ValueError, match="'bert' model; expected a CLAP"):
        Clap(bert_folder)

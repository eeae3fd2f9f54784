"""What a press of a button answers, and what it says about wrong input."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from demo_mac import limits
from demo_mac.answers import describe, encode_flac, rank_labels
from processing_mac import AudioCaptioningPipeline


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu", return_segments=True)


@pytest.fixture
def make_file(tmp_path, sound):
    """Writes a recording of so many seconds: its path."""

    def make(seconds: float, name: str = "sound.wav") -> str:
        soundfile.write(tmp_path / name, sound(seconds), 16_000)
        return str(tmp_path / name)

    return make


def test_the_caption_of_one_window_is_the_pipelines(captioner, make_file):
    path = make_file(4)
    [expected] = captioner(path)
    described = describe(captioner, path)
    assert described.caption == expected["caption"] and len(described.waveform) == 4 * 16_000
    assert described.segments == [{"start": 0.0, "end": 4.0, "caption": described.caption}]


def test_a_long_recording_is_told_by_its_windows(captioner, make_file, monkeypatch):
    """What is heard, in order, each thing once; neighbours that say the same are one segment."""
    said = iter([["a dog barks", "a dog barks", "rain falls", "a dog barks"]])
    monkeypatch.setattr(AudioCaptioningPipeline, "generate", lambda *arguments: next(said))
    described = describe(captioner, make_file(40))
    assert described.caption == "a dog barks; rain falls"
    assert [(segment["start"], segment["end"], segment["caption"]) for segment in described.segments] == [
        (0.0, 20.48, "a dog barks"),
        (20.48, 30.72, "rain falls"),
        (30.72, 40.0, "a dog barks"),
    ]


def test_what_was_heard_can_be_played(sound):
    waveform = sound(2) * 3  # beyond full scale
    samples, rate = soundfile.read(io.BytesIO(encode_flac(waveform, 16_000)), dtype="float32")
    assert rate == 16_000 and np.abs(samples - np.clip(waveform, -1, 1)).max() < 1e-4


def test_the_prompt_is_asked_and_a_blank_one_is_the_default(captioner, make_file, monkeypatch):
    path, prompts = make_file(1), []
    generate = AudioCaptioningPipeline.generate
    monkeypatch.setattr(
        AudioCaptioningPipeline,
        "generate",
        lambda self, features, counts, prompt, kwargs: (
            prompts.append(prompt) or generate(self, features, counts, prompt, kwargs)
        ),
    )
    for prompt in ("", "  ", " a bell? "):
        describe(captioner, path, prompt)
    assert prompts == [None, None, "a bell?"]


def test_a_model_that_says_nothing_is_told_of(captioner, make_file, monkeypatch):
    monkeypatch.setattr(AudioCaptioningPipeline, "generate", lambda self, features, counts, *rest: [""] * len(counts))
    assert describe(captioner, make_file(1), "Why?").caption == "(the model said nothing to this prompt)"


def test_probabilities_of_labels_are_those_of_their_whole_texts(captioner, make_file):
    """The same from the model's own losses, one text at a time, whatever the lengths of the texts."""
    path, labels = make_file(2), ["rain", "a dog barks in the yard", "a bell"]
    log_probability = []
    for label in labels:
        inputs = captioner.processor(path, "hear", answer=label)
        with torch.inference_mode():
            loss = captioner.model(**inputs).loss.item()
        log_probability.append(-loss * int((inputs["labels"] != -100).sum()))
    expected = np.exp(log_probability) / np.exp(log_probability).sum()
    ranking = rank_labels(captioner, path, "hear", "rain\n\n  a dog barks  in the yard\na bell\nrain\n")
    assert list(ranking) == labels
    assert list(ranking.values()) == pytest.approx(expected.tolist(), abs=1e-3)
    assert sum(ranking.values()) == pytest.approx(1)


def test_labels_of_a_long_recording_are_ranked_by_its_windows(captioner, make_file, tmp_path):
    """The mean over time of what each window gives by itself, unless the model was trained on so many windows."""
    path, labels = make_file(15.36), "rain\na dog barks in the yard\na bell"
    samples, _ = soundfile.read(path, dtype="float32")
    parts = []
    for name, part in (("one.wav", samples[: 163_840 + 240]), ("two.wav", samples[163_840:])):
        soundfile.write(tmp_path / name, part, 16_000, subtype="FLOAT")
        parts.append(np.array(list(rank_labels(captioner, str(tmp_path / name), "", labels).values())))
    ranking = rank_labels(captioner, path, "", labels)
    assert list(ranking.values()) == pytest.approx(((2 * parts[0] + parts[1]) / 3).tolist(), abs=1e-4)
    captioner.processor.trained_windows = 2
    assert rank_labels(captioner, path, "", labels) != pytest.approx(ranking, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.wav", b"", "empty.wav: the file is empty"),
        ("notes.wav", b"no sound at all", "notes.wav: cannot be read as audio"),
        ("notes.txt", b"no sound at all", "notes.txt: cannot be read as audio"),
    ],
)
def test_what_is_no_audio(name, content, message, captioner, tmp_path):
    (tmp_path / name).write_bytes(content)
    for answer in (lambda path: describe(captioner, path), lambda path: rank_labels(captioner, path, "", "a\nb")):
        with pytest.raises(ValueError, match=f"^{message}") as error:
            answer(str(tmp_path / name))
        assert str(tmp_path) not in str(error.value)  # folders of the server are nobody's business


def test_no_sound_and_too_short(captioner, make_file):
    with pytest.raises(ValueError, match="There is no sound yet"):
        describe(captioner, None)
    with pytest.raises(ValueError, match=r"^sound.wav: 160 samples .* at least 400"):
        describe(captioner, make_file(0.01))


def test_too_long(captioner, make_file, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SECONDS", 2)
    with pytest.raises(ValueError, match=r"^long.flac: 3 s long; this page takes up to 2 s\.$"):
        describe(captioner, make_file(3, "long.flac"))


def test_a_length_that_is_found_while_decoding(captioner, monkeypatch):
    """This MP3 states 649 days, which nobody believes, and has 5.5 s."""
    file = str(Path(__file__).parents[1] / "fixtures" / "field" / "xing_wrong_huge.mp3")
    described = describe(captioner, file)
    assert described.caption
    assert described.losses == ["xing_wrong_huge.mp3: 5.51 s of the 56097531.97 s that it states are there."]
    monkeypatch.setattr(limits, "MAX_SECONDS", 2)
    with pytest.raises(ValueError, match=r"^xing_wrong_huge.mp3: longer than 2 s, which is the most"):
        describe(captioner, file)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "2 to 100 different labels, one a line; got 0"),
        ("dog\n dog \n\n", "got 1"),
        ("\n".join(map(str, range(101))), "got 101"),
        ("dog\n" + "a" * 501, "501 characters"),
        ("dog\n<|audio|>", "stands for audio"),
    ],
)
def test_wrong_labels(labels, message, captioner, make_file):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        rank_labels(captioner, make_file(1), "", labels)


def test_wrong_prompt(captioner, make_file):
    with pytest.raises(ValueError, match="501 characters; this page takes up to 500"):
        describe(captioner, make_file(1), "a" * 501)
    with pytest.raises(ValueError, match="2 times; expected once"):
        describe(captioner, make_file(1), "<|audio|> and <|audio|>")


def test_the_examples_of_the_repository_can_be_described(captioner):
    examples = Path(__file__).parents[2] / "examples"
    assert describe(captioner, str(examples / "siren.opus")).caption

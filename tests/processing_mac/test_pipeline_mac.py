"""`pipeline("audio-captioning")`, on a tiny model with random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset
from transformers import AutoModelForMultimodalLM, AutoProcessor, GenerationConfig, pipeline

from modeling_mac import MacForConditionalGeneration
from processing_mac import DEFAULT_MODEL, AudioCaptioningPipeline, MacProcessor


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu", sampling_rate=16_000)


@pytest.fixture
def clips(sound) -> list[np.ndarray]:
    """Three clips: of one window, three windows, and one again."""
    return [sound(3, 1), sound(25, 2), sound(5, 3)]


@pytest.fixture
def caption_directly(model, processor) -> Callable[..., str]:
    """Captions one clip with the model and the processor alone."""

    def caption(clip: np.ndarray, text: str | None = None, **generate_kwargs: Any) -> str:
        inputs = processor(clip, text=text, sampling_rate=16_000)
        tokens = model.generate(**inputs, **generate_kwargs)
        return processor.decode(tokens[0, inputs["input_ids"].shape[1] :])

    return caption


def test_one_clip(captioner, clips, caption_directly):
    assert captioner(clips[0]) == [{"caption": caption_directly(clips[0])}]


def test_the_random_model_tells_clips_and_prompts_apart(clips, caption_directly):
    """Or the tests below would prove little."""
    assert len({caption_directly(clip) for clip in clips}) == 3
    assert caption_directly(clips[0], text="Hi") != caption_directly(clips[0])
    assert any(caption_directly(clip, num_beams=4) != caption_directly(clip) for clip in clips)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("num_beams", [1, 4])
def test_a_batch_is_each_clip_alone(batch_size, num_beams, captioner, clips, caption_directly):
    alone = [[{"caption": caption_directly(clip, num_beams=num_beams)}] for clip in clips]
    assert captioner(clips, batch_size=batch_size, num_beams=num_beams) == alone


def test_a_generator_is_read_as_it_goes(captioner, clips):
    read = []

    def generate():
        for clip in clips:
            read.append(clip)
            yield clip

    results = iter(captioner(generate()))
    assert next(results) == captioner(clips[0]) and len(read) < 3
    assert list(results) == captioner(clips[1:])
    assert list(captioner(iter(clips), batch_size=2)) == captioner(clips) == list(captioner(map(np.copy, clips)))


def test_files_bytes_and_dicts(captioner, clips, tmp_path):
    path = tmp_path / "dog.wav"
    soundfile.write(path, clips[0], 16_000, subtype="FLOAT")
    row = {"array": clips[0], "sampling_rate": 16_000}
    for audio in (str(path), path, path.read_bytes(), row, {"path": str(path), "bytes": None}):
        assert captioner(audio) == captioner(clips[0])
    with open(path, "rb") as file:
        assert captioner(file) == captioner(clips[0])


def test_the_sampling_rate_of_arrays(model, processor, sound):
    captioner = AudioCaptioningPipeline(model, processor=processor, device="cpu")
    with pytest.raises(ValueError, match="needs its `sampling_rate`"):
        captioner(sound(3))
    slow = captioner({"array": sound(3, rate=8_000), "sampling_rate": 8_000})
    assert captioner(sound(3, rate=8_000), sampling_rate=8_000) == slow


def test_prompts_of_the_constructor_and_of_a_call(model, processor, clips, caption_directly):
    captioner = AudioCaptioningPipeline(model, processor=processor, device="cpu", sampling_rate=16_000, prompt="Hi")
    assert captioner(clips[0]) == [{"caption": caption_directly(clips[0], text="Hi")}]
    assert captioner(clips[0], prompt="Who?") == [{"caption": caption_directly(clips[0], text="Who?")}]


def test_arguments_of_generate_add_up(model, processor, clips, caption_directly):
    captioner = AudioCaptioningPipeline(
        model, processor=processor, device="cpu", sampling_rate=16_000, generate_kwargs={"num_beams": 4}
    )
    expected = [{"caption": caption_directly(clips[0], num_beams=4, max_new_tokens=3)}]
    assert captioner(clips[0], max_new_tokens=3) == expected
    assert captioner(clips[0], generate_kwargs={"max_new_tokens": 3}) == expected
    assert captioner(clips[0], num_beams=1) == [{"caption": caption_directly(clips[0])}]


def test_a_generation_config(captioner, clips, caption_directly):
    config = GenerationConfig(max_new_tokens=3, eos_token_id=0, pad_token_id=1)
    assert captioner(clips[0], generation_config=config) == [{"caption": caption_directly(clips[0], max_new_tokens=3)}]


def test_several_captions_a_clip_are_refused(captioner, clips):
    with pytest.raises(ValueError, match="one caption a clip"):
        captioner(clips[:2], batch_size=2, num_beams=2, num_return_sequences=2)


@pytest.mark.parametrize("prompt", [3, ["Hi", "Who?"], b"Hi"])
def test_a_prompt_that_is_no_string_is_refused(prompt, captioner, clips):
    with pytest.raises(ValueError, match=r"`prompt` is .*; expected a string"):
        captioner(clips[:2], batch_size=2, prompt=prompt)


def test_an_unknown_argument_is_refused(captioner, clips, model, processor):
    with pytest.raises(TypeError, match="'num_beam'; expected prompt, return_segments"):
        captioner(clips[0], num_beam=4)
    with pytest.raises(TypeError, match="'promt'"):
        AudioCaptioningPipeline(model, processor=processor, device="cpu", promt="Hi")


def test_bad_audio_is_named(captioner, clips, tmp_path):
    with pytest.raises(ValueError, match=r"no\.wav: no such audio file"):
        captioner([clips[0], str(tmp_path / "no.wav")])


@pytest.mark.parametrize(
    ("seconds", "starts", "end"),
    [
        (3, [0], 3),
        (25, [0, 10.24, 20.48], 25),
        (10.7, [0], 10.7),  # a tail of 0.46 s
        (10.8, [0, 10.24], 10.8),
        (20.5, [0, 10.24], 20.5),
    ],
)
def test_segments(seconds, starts, end, captioner, sound, caption_directly):
    clip = sound(seconds, 2)
    [result] = captioner(clip, return_segments=True)
    assert result["caption"] == caption_directly(clip)
    assert [segment["start"] for segment in result["segments"]] == starts
    assert [segment["end"] for segment in result["segments"]] == [*starts[1:], end]


def test_a_segments_caption_is_its_windows(captioner, model, processor, clips):
    [result] = captioner(clips[1], return_segments=True, prompt="Hi")
    windows = processor.feature_extractor(clips[1], 16_000)["input_features"]
    for segment, window in zip(result["segments"], windows, strict=True):
        inputs = processor.encode([1], "Hi")
        tokens = model.generate(**inputs, input_features=window[None])
        assert segment["caption"] == processor.decode(tokens[0, inputs["input_ids"].shape[1] :])


@pytest.mark.parametrize("num_beams", [1, 4])
def test_segments_in_a_batch(num_beams, captioner, clips):
    alone = [captioner(clip, return_segments=True, num_beams=num_beams) for clip in clips]
    assert captioner(clips, batch_size=2, return_segments=True, num_beams=num_beams) == alone
    assert [len(result[0]["segments"]) for result in alone] == [1, 3, 1]


@pytest.fixture
def plain_folder(model, processor, tmp_path) -> Path:
    """Saved by the model and the processor themselves."""
    model.save_pretrained(tmp_path / "plain")
    processor.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.fixture
def pipeline_folder(captioner, tmp_path) -> Path:
    """Saved by the pipeline."""
    captioner.save_pretrained(tmp_path / "released")
    return tmp_path / "released"


def test_pipeline_by_name_on_a_plain_folder(plain_folder, captioner, clips):
    loaded = pipeline("audio-captioning", model=str(plain_folder), device="cpu")
    assert isinstance(loaded, AudioCaptioningPipeline)
    assert loaded(clips, sampling_rate=16_000, batch_size=2) == captioner(clips)


def test_pipeline_by_name_on_a_released_folder(pipeline_folder, captioner, clips):
    loaded = pipeline("audio-captioning", model=str(pipeline_folder), device="cpu", trust_remote_code=True)
    assert loaded(clips, sampling_rate=16_000, batch_size=2) == captioner(clips)


@pytest.mark.parametrize("folder", ["plain_folder", "pipeline_folder"])
def test_auto_classes_load_either_folder_without_its_code(folder, request, captioner, clips):
    folder = request.getfixturevalue(folder)
    for code in folder.glob("*.py"):
        code.write_text("raise RuntimeError('this code must not run')")
    loaded = AutoModelForMultimodalLM.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(loaded) is MacForConditionalGeneration and type(processor) is MacProcessor
    again = AudioCaptioningPipeline(loaded, processor=processor, device="cpu", sampling_rate=16_000)
    assert again(clips) == captioner(clips)


def test_the_released_config_names_the_pipeline_and_no_path(pipeline_folder):
    config = json.loads((pipeline_folder / "config.json").read_text())
    task = config["custom_pipelines"]["audio-captioning"]
    assert task["impl"] == "pipeline_mac.AudioCaptioningPipeline" and task["pt"] == ["AutoModelForMultimodalLM"]
    for path in (DEFAULT_MODEL, str(pipeline_folder), str(Path(__file__).parents[2]), str(Path.home())):
        for file in pipeline_folder.glob("*.json"):
            assert f'"{path}' not in file.read_text(), file.name


def test_without_a_model_the_packaged_one_captions(sound):
    if not (Path(DEFAULT_MODEL) / "model.safetensors").is_file():
        pytest.skip(f"no checkpoint in {DEFAULT_MODEL}")
    [result] = pipeline("audio-captioning", device="cpu")(sound(3), sampling_rate=16_000)
    assert result["caption"]


def test_no_clips_have_no_captions(captioner):
    assert captioner([]) == [] and captioner((), batch_size=2) == []


def test_pairs_tuples_and_datasets_are_clips(captioner, sound, tmp_path):
    path = str(tmp_path / "dog.wav")
    soundfile.write(path, sound(3), 16_000, subtype="FLOAT")
    expected = captioner(path)
    assert captioner((16_000, sound(3))) == captioner((sound(3), 16_000)) == expected
    rows = Dataset.from_dict({"audio": [path] * 3}).cast_column("audio", Audio(decode=False))
    assert captioner(rows[0]) == expected
    for clips in (rows, rows["audio"], (path,) * 3):
        assert captioner(clips, batch_size=2) == [expected] * 3

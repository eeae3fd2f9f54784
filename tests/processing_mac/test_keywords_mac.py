"""The processor takes the standard keywords of transformers' processors, flat and in groups."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoProcessor, pipeline

from processing_mac import DEFAULT_MODEL


CRYING = Path(__file__).parents[2] / "examples" / "crying_baby.mp3"
CLIP = np.sin(np.arange(16_000, dtype=np.float32) / 5) / 2


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(DEFAULT_MODEL)


def test_groups_do_what_flat_keywords_do(processor):
    flat = processor([CLIP, CLIP], ["a?", "what is it?"], sampling_rate=16_000, padding="max_length", max_length=90)
    groups = processor(
        [CLIP, CLIP], ["a?", "what is it?"], audio_kwargs={"sampling_rate": 16_000},
        text_kwargs={"padding": "max_length"}, common_kwargs={"max_length": 90},
    )  # fmt: skip
    assert flat["input_ids"].shape == groups["input_ids"].shape == (2, 90)
    assert all(flat[name].equal(groups[name]) for name in flat)


def test_multiples_sides_and_arrays(processor):
    inputs = processor(CLIP, sampling_rate=16_000, pad_to_multiple_of=32, padding_side="right", return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in inputs.values())
    assert inputs["input_ids"].shape[1] % 32 == 0
    assert inputs["attention_mask"][0, 0] == 1 and inputs["attention_mask"][0, -1] == 0


def test_truncation_keeps_the_audio_whole(processor):
    options = {"sampling_rate": 16_000, "truncation": True}
    whole = processor(CLIP, answer="a dog is barking", **options, max_length=500)
    length = whole["input_ids"].shape[1]
    cut = processor(CLIP, answer="a dog is barking", **options, max_length=length - 2)
    for name in ("input_ids", "labels"):
        assert cut[name].equal(whole[name][:, :-2])
    with pytest.raises(ValueError, match="would cut the audio of row 0"):
        processor(CLIP, **options, max_length=10)


def test_offsets_name_the_characters_of_prompt_and_answer(processor):
    inputs = processor(CLIP, answer="a dog is barking", sampling_rate=16_000, return_offsets_mapping=True)
    text = processor.expand_audio(processor.write_prompts(None, 1)[0], 1) + "a dog is barking"
    ids, spans = inputs["input_ids"][0], inputs["offset_mapping"][0].tolist()
    for token, (start, end) in zip(ids[64:-1].tolist(), spans[64:-1], strict=True):
        assert processor.tokenizer.decode([token]).strip() == text[start:end].strip()


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"text_kwargs": {"stride": 3}}, TypeError, "unexpected arguments: stride"),
        ({"audio_kwargs": {"max_length": 3}}, TypeError, "unexpected arguments: max_length"),
        ({"padding": True, "text_kwargs": {"padding": False}}, ValueError, "given twice, in `text_kwargs`"),
        ({"return_tensors": "tf"}, ValueError, "expected 'pt' or 'np'"),
        ({"padding": "max_length"}, ValueError, "need `max_length`"),
        ({"images": ["cat.png"]}, ValueError, "leave out `images`"),
    ],
)
def test_what_it_cannot_follow_is_refused(processor, keywords, error, message):
    with pytest.raises(error, match=message):
        processor(CLIP, sampling_rate=16_000, **keywords)


def test_rows_of_unlike_length_need_padding(processor):
    with pytest.raises(ValueError, match="`padding` is off"):
        processor([CLIP, CLIP], ["a?", "what is it?"], sampling_rate=16_000, padding=False)
    assert processor([CLIP, CLIP], "a?", sampling_rate=16_000, padding=False)["input_ids"].shape[0] == 2


def test_any_to_any_takes_text_and_audio():
    ask = pipeline("any-to-any", model=DEFAULT_MODEL)
    [answer] = ask(text="<|audio|>Describe the sound.\n", audio=str(CRYING), return_full_text=False)
    assert "baby" in answer["generated_text"]

"""A kept state answers what the audio would, also after saving, and belongs to one model."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from evaluation_mac.protocols.likelihood import score_by_likelihood
from modeling_mac import MacForConditionalGeneration
from processing_mac import AudioCaptioningPipeline
from processing_mac.audio_state_mac import AudioState


TEXTS = ["a dog barks in the yard", "rain falls", "a bell rings twice on a roof"]
GPT = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
       "intermediate_size": 64}  # fmt: skip


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


@pytest.fixture
def attention(make_config, make_processor, tokenizer) -> AudioCaptioningPipeline:
    """The same with a transformer, whose cache is its own."""
    torch.manual_seed(0)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = make_config(text_config=GPT | ends | {"vocab_size": len(tokenizer)}, initializer_range=1.0)
    model = MacForConditionalGeneration(config).eval()
    model.generation_config.update(max_new_tokens=8, **ends)
    return AudioCaptioningPipeline(model, processor=make_processor(config), device="cpu")


@pytest.mark.parametrize("kind", ["captioner", "attention"])
def test_a_state_says_what_the_audio_says(kind, request, sound, tmp_path: Path) -> None:
    captioner = request.getfixturevalue(kind)
    for seconds in (3, 23):
        clip = sound(seconds)
        state = captioner.listen(clip, 16_000)
        for prompt in (None, "a bell rings", "", "<|audio|>a dog"):
            for search in ({}, {"num_beams": 3}):
                expected = captioner(clip, sampling_rate=16_000, prompt=prompt, **search)[0]["caption"]
                assert state.ask(prompt, **search) == expected
        expected = score_by_likelihood(captioner.model, captioner.processor, clip_of(clip), TEXTS)[0]
        torch.testing.assert_close(state.score(TEXTS), expected, atol=1e-5, rtol=0)
        state.save(tmp_path / "state.safetensors")
        again = AudioState.load(tmp_path / "state.safetensors", captioner)
        assert torch.equal(again.score(TEXTS), state.score(TEXTS)) and again.duration == seconds
        assert again.ask(num_beams=3) == state.ask(num_beams=3)


@pytest.mark.parametrize("kind", ["captioner", "attention"])
def test_several_searches_go_on_from_one_reading(kind, request, sound, monkeypatch) -> None:
    """Each says what it says from the audio, also where the tokens of the prompt are not to be repeated."""
    captioner = request.getfixturevalue(kind)
    clip = sound(12)
    # A prompt whose tokens a penalty then keeps from coming again.
    prompt = f"a bell rings {captioner(clip, sampling_rate=16_000)[0]['caption']}"
    captioner = AudioCaptioningPipeline(captioner.model, processor=captioner.processor, device="cpu", prompt=prompt)
    searches = [{"num_beams": beams, "repetition_penalty": penalty} for beams in (1, 2, 4) for penalty in (1.0, 9.0)]
    expected = [[captioner(clip, sampling_rate=16_000, **search)[0]["caption"]] for search in searches]
    assert len({caption for [caption] in expected}) > 2, "the searches must differ for this to tell"
    lengths, forward = [], captioner.model.model.forward

    def read(*arguments, **inputs):
        lengths.append(inputs["input_ids"].shape[1])
        return forward(*arguments, **inputs)

    monkeypatch.setattr(captioner.model.model, "forward", read)
    assert captioner.search(clip, searches, 16_000) == expected
    assert sum(length > 1 for length in lengths) == 2, "the audio once, and the prompt but for its last token once"


def test_a_search_gives_its_best_answers(captioner, sound) -> None:
    state = captioner.listen(sound(3), 16_000)
    [answers] = state.search([{"num_beams": 4, "num_return_sequences": 3}])
    assert len(set(answers)) == 3 and answers[0] == state.ask(num_beams=4)
    with pytest.raises(ValueError, match="gives one answer"):
        state.ask(num_beams=4, num_return_sequences=3)


def clip_of(clip):
    return {"array": clip, "sampling_rate": 16_000}


def test_a_prompt_is_text_after_the_audio(captioner, sound) -> None:
    """The cache ends with the audio: what comes before was not heard, and without a token after it nothing follows."""
    state = captioner.listen(sound(2), 16_000)
    for question in (state.ask, lambda prompt: state.score(TEXTS, prompt)):
        with pytest.raises(ValueError, match=r"'<\|audio\|>' ends with the audio; a state needs at least a token"):
            question("<|audio|>")
        with pytest.raises(ValueError, match="other text before the audio than was heard: listen again"):
            question("a dog <|audio|> barks")
        with pytest.raises(ValueError, match="2 times"):
            question("<|audio|><|audio|>")


def test_the_prompt_of_the_captioner_is_that_of_its_states(captioner, sound, tmp_path: Path) -> None:
    """Also one with text before the audio, which is then heard first; several searches go on from it, too."""
    clip, expected = sound(3), []
    for prompt in ("a bell rings", "a dog barks <|audio|> rain falls"):
        asked = AudioCaptioningPipeline(captioner.model, processor=captioner.processor, device="cpu", prompt=prompt)
        state = asked.listen(clip, 16_000)
        expected.append(asked(clip, sampling_rate=16_000)[0]["caption"])
        assert state.ask() == expected[-1] == state.ask(prompt)
        assert asked.search(clip, [{}, {"num_beams": 3}], 16_000) == [
            [asked(clip, sampling_rate=16_000, num_beams=beams)[0]["caption"]] for beams in (1, 3)
        ]
        state.save(tmp_path / "state")
        assert AudioState.load(tmp_path / "state", captioner).ask() == expected[-1]
    assert len({*expected, captioner(clip, sampling_rate=16_000)[0]["caption"]}) == 3
    with pytest.raises(ValueError, match="other text before the audio"):
        state.ask("a bell rings")


def test_hearing_piece_by_piece_is_hearing_at_once(captioner, sound) -> None:
    whole = captioner.listen(sound(30), 16_000)
    pieces = AudioState(captioner.model, captioner.processor)
    features = captioner.processor.feature_extractor(sound(30), 16_000)["input_features"]
    for window in features:
        pieces.hear(window[None], 10)
    assert pieces.tokens == whole.tokens
    torch.testing.assert_close(pieces.score(TEXTS), whole.score(TEXTS), atol=1e-5, rtol=0)


def test_half_the_size_says_nearly_the_same(captioner, sound, tmp_path: Path) -> None:
    state = captioner.listen(sound(5), 16_000)
    state.save(tmp_path / "full")
    state.save(tmp_path / "half", torch.float16)
    assert (tmp_path / "half").stat().st_size < 0.7 * (tmp_path / "full").stat().st_size
    half = AudioState.load(tmp_path / "half", captioner)
    torch.testing.assert_close(half.score(TEXTS), state.score(TEXTS), atol=0.05, rtol=0)


def test_what_is_no_state_of_this_model_is_refused(captioner, sound, tmp_path: Path) -> None:
    file = tmp_path / "state"
    captioner.listen(sound(2), 16_000).save(file)
    whole = file.read_bytes()
    captioner.model.lm_head.weight.data[0, 0] += 1
    with pytest.raises(ValueError, match="heard by another model"):
        AudioState.load(file, captioner)
    for content in (whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="no whole state"):
            AudioState.load(file, captioner)
    with pytest.raises(ValueError, match="heard nothing"):
        AudioState(captioner.model, captioner.processor).ask()
    for text in (" ", "a <|audio|> dog", None):
        with pytest.raises(ValueError, match=rf"row 1 is {re.escape(repr(text))}"):
            captioner.listen(sound(2), 16_000).score(["a dog", text])


def test_numbers_that_float16_has_not_are_refused(captioner, sound, tmp_path: Path) -> None:
    state = captioner.listen(sound(2), 16_000)
    with torch.inference_mode():
        state.cache.layers[0].recurrent_states[0][..., 0] = 1e6
    with pytest.raises(ValueError, match=r"half: the state has numbers beyond torch\.float16"):
        state.save(tmp_path / "half", torch.float16)
    for dtype in (torch.int8, "float16"):  # of which the first would cut off what follows the point
        with pytest.raises(ValueError, match="expected a number type of torch for floats"):
            state.save(tmp_path / "half", dtype)
    assert not list(tmp_path.iterdir())
    state.save(tmp_path / "full")


@pytest.mark.parametrize("kind", ["captioner", "attention"])
def test_a_damaged_content_is_told(kind, request, sound, tmp_path: Path) -> None:
    captioner, file = request.getfixturevalue(kind), tmp_path / "state"
    captioner.listen(sound(2), 16_000).save(file)
    tensors, name = load_file(file), "mac_audio_state"
    with safe_open(file, "pt") as content:
        about = content.metadata()[name]
    first, second, *_ = tensors
    for metadata, kept in (
        (None, tensors),
        ({name: "{}"}, tensors),
        ({name: "[]"}, tensors),
        ({name: about.replace('"windows": 1', '"windows": "one"')}, tensors),
        ({name: about}, {first: tensors[first]}),
        ({name: about}, tensors | {"more": torch.zeros(1)}),
        ({name: about}, tensors | {second: torch.zeros(1)}),
    ):
        save_file(kept, file, metadata=metadata)
        with pytest.raises(ValueError, match="no whole state"):
            AudioState.load(file, captioner)


def test_a_model_alone_needs_its_processor(captioner, sound, tmp_path: Path) -> None:
    file = tmp_path / "state"
    state = captioner.listen(sound(2), 16_000)
    state.save(file)
    with pytest.raises(ValueError, match="expected its pipeline, or its processor"):
        AudioState.load(file, captioner.model)
    for arguments in ((captioner.model, captioner.processor), (captioner, captioner.processor)):
        assert torch.equal(AudioState.load(file, *arguments).score(TEXTS), state.score(TEXTS))


def test_what_cannot_be_saved_leaves_nothing_behind(captioner, sound, tmp_path: Path, monkeypatch) -> None:
    state = captioner.listen(sound(2), 16_000)
    with pytest.raises(FileNotFoundError):
        state.save(tmp_path / "missing" / "state")

    def full(*_):
        raise OSError(28, "No space left on device")

    state.save(tmp_path / "state")
    before = (tmp_path / "state").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        state.save(tmp_path / "state")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]

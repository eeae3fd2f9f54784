"""Likelihoods of captions are those of scoring each pair from scratch, from one reading of each clip."""

import pytest
import torch
from text_configs import text_config

from evaluation_mac.protocols.likelihood import score_by_likelihood
from modeling_mac import MacForConditionalGeneration
from modeling_mac.language_model_mac import TESTED


CAPTIONS = ["a dog barks in the yard", "rain", "a bell rings twice", "a", "rain falls on a roof and a bell rings"]


@torch.inference_mode()
def from_scratch(model, processor, clip, caption: str, prompt: str | None = None) -> float:
    """The loss of training, of one pair without any padding."""
    return model(**processor(clip, prompt, answer=caption, sampling_rate=16_000)).loss.item()


@pytest.mark.parametrize("kind", sorted(TESTED))
def test_equals_each_pair_from_scratch(kind, make_config, tokenizer, processor, sound):
    """On every kind of language model."""
    torch.manual_seed(0)
    language_model = text_config(kind, vocab_size=len(tokenizer))
    config = make_config(text_config=language_model, initializer_range=1.0, tie_word_embeddings=False)
    model = MacForConditionalGeneration(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("A_log"):
            torch.nn.init.constant_(parameter, -5.0)  # else the clip is forgotten while the prompt is read
    clips = [{"array": sound(seconds, seed), "sampling_rate": 16_000} for seconds, seed in [(2, 1), (11, 2)]]
    losses = score_by_likelihood(model, processor, clips, CAPTIONS, prompt="What is it?", batch_size=2)
    expected = [[from_scratch(model, processor, clip, text, "What is it?") for text in CAPTIONS] for clip in clips]
    torch.testing.assert_close(losses, torch.tensor(expected), rtol=0, atol=5e-4)
    assert losses.std(dim=0).min() > 1e-3  # the clip matters


def test_padding_that_is_the_end_token_counts_once(model, processor, sound):
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    clip = {"array": sound(2), "sampling_rate": 16_000}
    losses = score_by_likelihood(model, processor, clip, CAPTIONS)
    expected = [[from_scratch(model, processor, clip, text) for text in CAPTIONS]]
    torch.testing.assert_close(losses, torch.tensor(expected), rtol=0, atol=1e-4)


def test_fifty_captions_from_one_reading_of_the_clip(model, processor, sound):
    """What it saves: `benchmarks/promises.py`."""
    clip = {"array": sound(10), "sampling_rate": 16_000}
    captions = [f"{text} {count}" for text in CAPTIONS for count in range(10)]
    encoded, read = [], []
    model.model.audio_tower.register_forward_pre_hook(lambda *_: encoded.append(1))
    model.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, inputs, named: read.append((inputs + tuple(named.values()))[0].shape[:2].numel()), with_kwargs=True
    )
    score_by_likelihood(model, processor, clip, captions)
    prompt = processor(clip, sampling_rate=16_000)["input_ids"].shape[1]
    longest = max(len(ids) for ids in processor.tokenizer(captions)["input_ids"])
    assert len(encoded) == 1 and prompt > 64
    assert sum(read) <= prompt + len(captions) * (longest + 1)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (["a dog", " ", "", "rain"], "expected a text, which is not so in rows 1, 2"),
        (["a dog", None], "row 1"),
        (["a <|audio|> dog"], r"expected no <\|audio\|>.* row 0"),
        ([], "at least one"),
        ("a dog", "expected a list"),
    ],
)
def test_bad_captions(captions, message, model, processor, sound):
    with pytest.raises(ValueError, match=message):
        score_by_likelihood(model, processor, {"array": sound(1), "sampling_rate": 16_000}, captions)

"""Batches for training: what the processor gives, and what a model learns from."""

import pytest
import torch

from training_mac.examples.collating import CaptionCollator, TrainingCollator


def test_the_collator_gives_what_the_processor_gives(processor, sound):
    clips, captions = [sound(3), sound(25)], ["a dog", "a bell rings twice"]
    windows = [processor.feature_extractor(clip, 16_000)["input_features"] for clip in clips]
    examples = [
        {"input_features": windows[0], "caption": captions[0], "prompt": "Who?"},
        {"input_features": windows[1], "caption": captions[1]},
    ]
    batch = CaptionCollator(processor, loss_on="all")(examples)
    texts = ["Who?", processor.default_prompt]
    expected = processor(clips, text=texts, answer=captions, loss_on="all", sampling_rate=16_000)
    assert set(batch) == set(expected) and all(torch.equal(batch[key], expected[key]) for key in batch)
    assert batch["audio_num_windows"].tolist() == [1, 3]


def test_the_model_learns_from_a_batch(model, processor, sound):
    windows = processor.feature_extractor(sound(3), 16_000)["input_features"]
    batch = CaptionCollator(processor)([{"input_features": windows, "caption": "a dog"}] * 2)
    loss = model.train()(**batch).loss
    loss.backward()
    assert loss.isfinite() and model.model.connector.linear_1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["concat", "time_major"])
def test_prompt_and_answer_are_cut_together(kind, make_config, make_processor, sound):
    processor = make_processor(make_config(connector_type=kind))
    windows = processor.feature_extractor(sound(3), 16_000)["input_features"]
    examples = [
        {"input_features": windows, "caption": caption, "prompt": "Who?"} for caption in ("a bell rings", "rain")
    ]
    whole = CaptionCollator(processor, "all")(examples)
    audio = int((whole["input_ids"][0] == processor.audio_token_id).nonzero().max()) + 1  # its end; nothing before it
    texts = (whole["attention_mask"].sum(dim=1) - audio).tolist()
    assert whole["input_ids"][0, 0] == processor.audio_token_id and texts[0] > texts[1]
    cut = CaptionCollator(processor, "all", texts[1])(examples)
    length = audio + texts[1]
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(cut[name], whole[name][:, :length]), name
    assert cut["labels"][0, -1] != processor.tokenizer.eos_token_id == cut["labels"][1, -1]
    shorter = CaptionCollator(processor, "all", texts[1] - 1)(examples)
    assert shorter["attention_mask"].sum(dim=1).tolist() == [length - 1, length - 1]
    packed = TrainingCollator(processor, "all", packing=True, max_text_tokens=texts[1])(examples)
    assert packed["input_ids"].shape == (1, 2 * length)


def test_a_cut_that_leaves_no_answer_is_refused(processor, sound):
    windows = processor.feature_extractor(sound(3), 16_000)["input_features"]
    examples = [{"input_features": windows, "caption": "rain", "prompt": "Who?", "audio": "a.wav"}]
    with pytest.raises(ValueError, match=r"`max_text_tokens` is 1, but the prompt of a.wav is as long or longer"):
        TrainingCollator(processor, "answer", max_text_tokens=1)(examples)
    assert (TrainingCollator(processor, "all", max_text_tokens=1)(examples)["labels"] != -100).sum() == 1

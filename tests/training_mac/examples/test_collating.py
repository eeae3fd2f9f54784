"""Batches for training: what the processor gives, and what a model learns from."""

import torch

from training_mac.examples.collating import CaptionCollator


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

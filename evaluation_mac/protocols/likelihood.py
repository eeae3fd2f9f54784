"""
How likely a captioner finds captions that it did not write (Labbé et al., DCASE 2023).

The clip and the prompt are read once. The language model's state after them (of Mamba-2, one small tensor a layer) is
copied for every caption, so that a caption costs its own tokens and no more.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from evaluation_mac.metrics.caption_input import refuse_rows
from processing_mac import MacProcessor
from processing_mac.audio_state_mac import AudioState


@torch.inference_mode()
def score_by_likelihood(
    model: PreTrainedModel,
    processor: MacProcessor,
    audio: Any,
    captions: Sequence[str],
    *,
    prompt: str | None = None,
    batch_size: int = 32,
) -> torch.Tensor:
    """
    Mean cross-entropy, in nats a token, of every caption for every clip.

    Args:
        model: MAC model with any language model.
        processor: Processor of the model.
        audio: One clip or a list of clips, as the processor takes them.
        captions: Captions to score, each with the token that ends it.
        prompt: Prompt that the captions answer; the processor's default if None.
        batch_size: Number of captions in a batch.

    Returns:
        (clips, captions) float32 on the CPU; low is likely.

    Raises:
        ValueError: no caption, captions without words or with the placeholder of audio (by row), or bad audio.
    """
    extractor = processor.feature_extractor
    token_ids = tokenize_captions(processor, captions)
    losses = []
    for waveform in extractor.load(audio):
        state = AudioState(model, processor, prompt)
        features = extractor(waveform, sampling_rate=extractor.sampling_rate)["input_features"]
        state.hear(features, len(waveform) / extractor.sampling_rate)
        losses.append(state.score_tokens(token_ids, batch_size=batch_size))
    return torch.stack(losses)


def tokenize_captions(processor: MacProcessor, captions: Sequence[str]) -> list[list[int]]:
    """The token ids of every caption, its end included, as in training."""
    if isinstance(captions, str) or not len(captions):
        raise ValueError(f"captions: expected a list with at least one text, got {captions!r}")
    refuse_rows("captions: expected a text", [not isinstance(text, str) or not text.strip() for text in captions])
    token_ids = processor.tokenizer(list(captions), add_special_tokens=False)["input_ids"]
    refuse_rows(
        f"captions: expected no {processor.audio_token}, which stands for audio",
        [processor.audio_token_id in row for row in token_ids],
    )
    return [[*row, processor.tokenizer.eos_token_id] for row in token_ids]

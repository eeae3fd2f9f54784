"""
How likely a captioner finds captions that it did not write (Labbé et al., DCASE 2023).

The clip and the prompt are read once. The language model's state after them (of Mamba-2, one small tensor a layer) is
copied for every caption, so that a caption costs its own tokens and no more.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from evaluation_mac.metrics.caption_input import refuse_rows
from processing_mac import MacProcessor


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
    batches = list(batch_by_length(token_ids, batch_size))
    losses = []
    for waveform in extractor.load(audio):
        inputs = processor(waveform, prompt, sampling_rate=extractor.sampling_rate).to(model.device)
        outputs = model(**inputs, use_cache=True, logits_to_keep=1)
        losses.append(torch.empty(len(token_ids)))
        for captions_at in batches:
            batch = processor.tokenizer.pad(
                {"input_ids": [token_ids[index] for index in captions_at]}, padding_side="right", return_tensors="pt"
            )
            losses[-1][captions_at] = score_batch(model, outputs.logits, outputs.cache, batch.to(model.device))
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


def batch_by_length(token_ids: list[list[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of captions, those of similar length together: little padding."""
    order = sorted(range(len(token_ids)), key=lambda index: len(token_ids[index]))
    yield from (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def score_batch(model: PreTrainedModel, first_logits: torch.Tensor, cache: Any, batch: Any) -> torch.Tensor:
    """
    Compute the mean loss of each caption, (captions,) in nats per token, on the CPU.

    Args:
        first_logits: Logits of the token after the prompt, (1, 1, vocabulary).
        cache: State after the prompt, which is left as it is.
        batch: Captions' `input_ids` and `attention_mask`, (captions, length), padded on the right.
    """
    tokens, mask = batch["input_ids"], batch["attention_mask"]  # PAD may equal EOS: only the mask tells them apart
    fork = copy.deepcopy(cache)
    fork.reorder_cache(torch.zeros(len(tokens), dtype=torch.long))
    # No mask for the model: it is causal, so nothing that counts comes after padding.
    logits = model(input_ids=tokens[:, :-1], cache=fork, use_cache=True).logits
    logits = torch.cat([first_logits.expand(len(tokens), -1, -1), logits], dim=1).float()
    losses = cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)
    return ((losses * mask).sum(dim=1) / mask.sum(dim=1)).cpu()

"""The training batch: made like the processor's collator does, packed if asked, with the names of the audio files."""

from typing import Any

import torch


class CaptionCollator:
    """
    Makes a batch of examples.

    An example is a dict with `input_features` (windows, frames, mel bins), or `encoder_hidden_states` (windows,
    1 + patches, dim), `caption` and optionally `prompt`; the batch is what the model's forward takes,
    padded on the right, with labels.

    Args:
        processor: Processor that writes prompts and answers.
        loss_on: Tokens that the loss counts, as `Recipe.loss_on` names them.
        max_text_tokens: Tokens of prompt and answer, with its end, after which the text is cut; None for all.
    """

    def __init__(self, processor: Any, loss_on: str = "answer", max_text_tokens: int | None = None):
        self.processor = processor
        self.loss_on = loss_on
        self.max_text_tokens = max_text_tokens

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        audio = "input_features" if "input_features" in examples[0] else "encoder_hidden_states"
        num_windows = [len(example[audio]) for example in examples]
        prompts = [example.get("prompt") or self.processor.default_prompt for example in examples]
        captions = [example["caption"] for example in examples]
        texts = self.processor.encode(num_windows, prompts, captions, loss_on=self.loss_on)
        if self.max_text_tokens is not None:
            texts = cut_text(texts, self.max_text_tokens, self.processor)
            for example, is_learnt in zip(examples, (texts["labels"] != -100).any(dim=1).tolist(), strict=True):
                if not is_learnt:
                    raise ValueError(
                        f"`max_text_tokens` is {self.max_text_tokens}, but the prompt of {example.get('audio')} is as "
                        f"long or longer, so that nothing of its answer would be learnt: {example.get('prompt')!r}."
                    )
        return {
            **texts,
            audio: torch.cat([example[audio] for example in examples]),
            "audio_num_windows": torch.tensor(num_windows),
        }


class TrainingCollator(CaptionCollator):
    """
    Makes a batch for `MacTrainer`, which takes `audio`, the file names, out before the model sees it.

    Args:
        processor: Processor that writes prompts and answers.
        loss_on: Tokens that the loss counts, as `Recipe.loss_on` names them.
        packing: Whether all clips share one row, with `seq_idx`, instead of a padded row each.
        max_text_tokens: Tokens after which the text is cut, as for `CaptionCollator`.
    """

    def __init__(
        self, processor: Any, loss_on: str = "answer", packing: bool = False, max_text_tokens: int | None = None
    ):
        super().__init__(processor, loss_on, max_text_tokens)
        self.packing = packing

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().__call__(examples)
        names = [str(example.get("audio", "a clip without a name")) for example in examples]
        return {**(pack(batch) if self.packing else batch), "audio": names}


def cut_text(batch: dict[str, torch.Tensor], most: int, processor: Any) -> dict[str, torch.Tensor]:
    """
    Cut the text of each row of a batch that is padded on the right, (clips, length), to `most` tokens.

    What stands from the first audio token to the last, with the separators between them, is no text. LTU cuts so, at
    108 tokens; an answer that is cut has no end.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    is_audio = (ids == processor.audio_token_id).int()
    is_text = mask & ((is_audio.cumsum(dim=1) == 0) | (is_audio.flip(1).cumsum(dim=1).flip(1) == 0))
    keep = mask & ~(is_text & (is_text.int().cumsum(dim=1) > most))
    length = int(keep.sum(dim=1).max())
    cut = {
        "input_ids": ids.masked_fill(~keep, processor.tokenizer.pad_token_id),
        "attention_mask": keep.to(batch["attention_mask"].dtype),
        "labels": batch["labels"].masked_fill(~keep, -100),
    }
    return {**batch, **{name: tensor[:, :length] for name, tensor in cut.items()}}


def pack(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Pack a padded batch, (clips, length), into one row without padding, (1, tokens), with `seq_idx`, each token's clip.

    A clip starts with its audio, which has no labels, so no clip's end is trained to predict the next one's start.
    """
    batch = dict(batch)
    mask = batch.pop("attention_mask").bool()
    clip = torch.arange(len(mask), dtype=torch.int32).unsqueeze(1).expand_as(mask)
    packed = {"input_ids": batch["input_ids"], "labels": batch["labels"], "seq_idx": clip}
    return {**batch, **{name: tensor[mask].unsqueeze(0) for name, tensor in packed.items()}}

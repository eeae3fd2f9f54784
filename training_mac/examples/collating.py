"""The training batch: made like the processor's collator does, packed if asked, with the names of the audio files."""

from typing import Any

import torch


class CaptionCollator:
    """
    Makes a batch of examples.

    An example is a dict with `input_features` (windows, frames, mel bins), or `encoder_hidden_states` (windows,
    1 + patches, dim), `caption` and optionally `prompt`; the batch is what the model's forward takes,
    padded on the right, with labels.
    """

    def __init__(self, processor: Any, loss_on: str = "answer"):
        self.processor = processor
        self.loss_on = loss_on

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        audio = "input_features" if "input_features" in examples[0] else "encoder_hidden_states"
        num_windows = [len(example[audio]) for example in examples]
        prompts = [example.get("prompt") or self.processor.default_prompt for example in examples]
        captions = [example["caption"] for example in examples]
        return {
            **self.processor.encode(num_windows, prompts, captions, loss_on=self.loss_on),
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
    """

    def __init__(self, processor: Any, loss_on: str = "answer", packing: bool = False):
        super().__init__(processor, loss_on)
        self.packing = packing

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().__call__(examples)
        names = [str(example.get("audio", "a clip without a name")) for example in examples]
        return {**(pack(batch) if self.packing else batch), "audio": names}


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

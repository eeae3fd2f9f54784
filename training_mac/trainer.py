"""transformers' Trainer with what a captioner needs: learning rates by part, validation by real generation."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer, TrainerControl

from evaluation_mac.source_naming import is_scored, naming_accuracy
from processing_mac.dataset_mac import Clip


class MacTrainer(Trainer):
    """
    Args:
        encoder_learning_rate: Learning rate of the parameters under `audio_tower`; `learning_rate` if None.
        Others: As `transformers.Trainer`.
    """

    optimizer: torch.optim.Optimizer | None
    control: TrainerControl

    def __init__(self, *args: Any, encoder_learning_rate: float | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.encoder_learning_rate = encoder_learning_rate

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """AdamW; weight decay on matrices only, the encoder with its own learning rate."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.model))
            groups: dict[tuple[bool, bool], list] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault(("audio_tower" in name, name in decayed), []).append(parameter)
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = kind(
                [
                    {
                        "params": parameters,
                        "weight_decay": self.args.weight_decay if decay else 0.0,
                        "lr": (self.encoder_learning_rate if encoder else None) or self.args.learning_rate,
                    }
                    for (encoder, decay), parameters in groups.items()
                ],
                **options,
            )
        return self.optimizer


class CaptionTrainer(MacTrainer):
    """
    Validates by captioning the validation recordings, greedily and from prompt-only inputs.

    Args:
        eval_clips: The recordings.
        processor: Audio -> inputs, tokens -> captions.
    """

    def __init__(self, *args: Any, eval_clips: Sequence[Clip], processor: Any, **kwargs: Any):
        super().__init__(*args, processing_class=processor, eval_dataset=list(eval_clips), **kwargs)
        self.eval_clips = eval_clips

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Caption every validation clip; score what names its source."""
        captions = self.caption([clip.audio for clip in self.eval_clips])
        pairs = list(zip(self.eval_clips, captions, strict=True))
        for clip, caption in pairs[:: max(1, len(pairs) // 5)]:
            print(f"  {clip.captions[0]!r} was captioned {caption!r}")
        named = [(caption, clip.source) for clip, caption in pairs if is_scored(clip.source)]
        metrics = {}
        if named:
            accuracy = naming_accuracy([caption for caption, _ in named], [source for _, source in named])
            metrics[f"{metric_key_prefix}_naming_accuracy"] = accuracy
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def caption(self, audio: Sequence[Any]) -> list[str]:
        """One greedy caption a clip."""
        model, processor = self.accelerator.unwrap_model(self.model), self.processing_class
        was_training = model.training
        model.eval()
        captions, size = [], self.args.per_device_eval_batch_size
        for start in range(0, len(audio), size):
            inputs = processor(audio=list(audio[start : start + size])).to(model.device)
            tokens = model.generate(**inputs)
            captions += processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :])
        model.train(was_training)
        return captions

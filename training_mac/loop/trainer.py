"""transformers' Trainer with what a captioner needs: parts, order, faults and speed."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import PrinterCallback, Trainer, TrainerControl, TrainerState
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_utils import rotate_checkpoints

from evaluation_mac.metrics.naming import load_naming
from processing_mac.dataset_mac import Clip
from training_mac.loop.adapters import parameter_groups
from training_mac.loop.checkpoints import MARKER, mark_whole, writing
from training_mac.loop.console import TrainingConsole
from training_mac.loop.nan_guard import NanGuard
from training_mac.loop.sampling import EpochSampler
from training_mac.loop.throughput import Throughput
from training_mac.loop.validation import beside_references, caption_clips, score
from training_mac.recipe.fields import Recipe


class MacTrainer(Trainer):
    """
    transformers' Trainer for the parts, data and faults of MAC.

    Args:
        recipe: Recipe of the stage.
        Others: Arguments of `transformers.Trainer`; the training set may have `lengths` (grouping) and `set_epoch`.
    """

    optimizer: torch.optim.Optimizer | None
    control: TrainerControl
    state: TrainerState

    def __init__(self, *args: Any, recipe: Recipe, **kwargs: Any):
        self.recipe = recipe
        super().__init__(*args, **kwargs)
        self.console = TrainingConsole(recipe.objective)
        self.remove_callback(PrinterCallback if self.args.disable_tqdm else DEFAULT_PROGRESS_CALLBACK)
        self.add_callback(self.console)
        self.throughput, self.whole_throughput = Throughput(), Throughput()
        self.guard = NanGuard(recipe.max_nan_steps)
        self.sampler: Any = None
        self.already_finished = False
        self.seconds_before, self.start = 0.0, time.perf_counter()  # seconds of earlier starts, start of this one

    # Parameters, order and data

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make AdamW, or the optimizer that `optim` names, with the groups of `parameter_groups`."""
        if self.optimizer is None:
            model = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(model))
            groups = parameter_groups(model, self.recipe, self.args.learning_rate, self.args.weight_decay, decayed)
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        """Make a sampler that derives from seed and epoch alone: a private hook, for the public API offers none."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "group_by_length") or not hasattr(dataset, "__len__"):
            return super()._get_train_sampler(train_dataset)
        lengths = dataset.lengths if strategy == "group_by_length" else None
        self.sampler = EpochSampler(len(dataset), self.args.seed, lengths, self.get_total_train_batch_size(self.args))
        return self.sampler

    def get_train_dataloader(self) -> DataLoader:
        """Make batches of the training set; a stream deals itself out to the processes, so accelerate must not."""
        if not isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        return DataLoader(
            self.train_dataset,
            self._train_batch_size,  # which `auto_find_batch_size` makes smaller
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        """
        Set the epoch of sampler and data set, then make one pass over the data.

        It is a private hook, since accelerate does not reach sampler and data set in every set-up.
        """
        if self.already_finished:
            self.control.should_training_stop = True
            return
        for part in (self.sampler, self.train_dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Train on one batch, and note the names of its files for the guard."""
        files = inputs.pop("audio", [])
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.guard.observe(loss, files)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """
        Have the guard check the gradients.

        It is a private hook, since no public one is told the norm of the gradients before the optimizer uses them.
        """
        grad_norm = super()._get_grad_norm(model, grad_norm)
        self.guard.check(model, grad_norm, not self.is_deepspeed_enabled, self.scales_loss)
        return grad_norm

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is multiplied by more than 1; DeepSpeed, which hides its scale, stops by itself at 1."""
        scaler = self.accelerator.scaler
        return self.args.fp16 and (self.is_deepspeed_enabled or (scaler is not None and scaler.get_scale() > 1))

    # Speed

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple:
        """Fetch the batches of a step, and count the time that the fetching takes."""
        with self.throughput.waiting(), self.whole_throughput.waiting():
            samples, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in samples:
            counts = batch.get("audio_num_windows")
            clips = len(batch["input_features"] if counts is None else counts)
            for counter in (self.throughput, self.whole_throughput):
                counter.clips += clips * self.args.world_size
                # A sum on a GPU stays there until it is read, so that no step waits for it.
                counter.windows += (clips if counts is None else counts.sum()) * self.args.world_size
        return samples, num_items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """
        Add clips a second and the share of waiting, since the last line and, at the end, over the whole training; and
        add the seconds that the training took so far, with those of earlier starts up to their last checkpoint.
        """
        if "loss" in logs or "train_runtime" in logs:
            logs["elapsed"] = round(self.seconds_before + time.perf_counter() - self.start, 1)
        if "loss" in logs:
            logs |= self.throughput.read()
            self.throughput.reset()
            if skipped := getattr(self.train_dataset, "num_skipped", 0):
                logs["skipped_audio"] = skipped
        elif "train_runtime" in logs:
            logs |= {f"train_{name}": value for name, value in self.whole_throughput.read().items()}
        super().log(logs, start_time)

    # Faults

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        """Train as `Trainer.train` does; a checkpoint from a run's last step is loaded and not trained on."""
        if isinstance(resume_from_checkpoint, (str, Path)):
            resume_from_checkpoint = str(resume_from_checkpoint)
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / "trainer_state.json"))
            control = state.stateful_callbacks.get("TrainerControl", {})
            self.already_finished = bool(control.get("args", {}).get("should_training_stop"))
            timed = [entry["elapsed"] for entry in state.log_history if "elapsed" in entry]
            self.seconds_before = max(timed, default=0.0)
        self.start = time.perf_counter()
        try:
            return super().train(resume_from_checkpoint, **kwargs)
        finally:
            self.console.close()

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Load, then freeze again what this stage leaves alone: peft marks every loaded LoRA matrix as learning."""
        frozen = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]
        super()._load_from_checkpoint(*args, **kwargs)
        for parameter in frozen:
            parameter.requires_grad_(False)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save, mark the checkpoint whole, and only then delete older ones, which the Trainer would delete before."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with writing(folder), self.throughput.paused(), self.whole_throughput.paused():
                if self.args.should_save:
                    (folder / MARKER).unlink(missing_ok=True)
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    mark_whole(folder)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate_checkpoints(self.args.output_dir, limit, self.state.best_model_checkpoint)


class CaptionTrainer(MacTrainer):
    """
    A trainer that validates by captioning the validation recordings from prompt-only inputs.

    Args:
        eval_clips: Validation recordings with their references.
        processor: Processor that turns audio into inputs and tokens into captions.
    """

    def __init__(self, *args: Any, eval_clips: Sequence[Clip], processor: Any, **kwargs: Any):
        super().__init__(*args, processing_class=processor, eval_dataset=list(eval_clips), **kwargs)
        self.naming = load_naming(self.recipe.naming) if self.recipe.naming else None

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Caption every validation clip, score the captions, and show some; all processes share the clips."""
        clips = self.eval_dataset if eval_dataset is None else list(eval_dataset)
        start = time.perf_counter()
        with self.throughput.paused(), self.whole_throughput.paused():
            captions, loss = caption_clips(self, clips)
            metrics = {"loss": loss, **score(clips, captions, self.recipe.eval_metrics, self.naming)}
        metrics["runtime"] = time.perf_counter() - start
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        if self.is_world_process_zero():
            for line in beside_references(clips, captions):
                self.console.print(line, style="dim")
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

"""
The objective of distillation: a student learns what a larger MAC expects at each labelled token, beside the caption.

The loss is `(1 - distill_weight) CE + distill_weight T^2 KL(teacher / T || student / T)` a token (Hinton et al.,
arXiv 1503.02531), at temperature T; T^2 keeps the size of its gradient where T changes. Optionally the student also
imitates how alike the teacher finds the labelled tokens to each other: their cosines need no projection where the two
widths differ (similarity-preserving distillation, Tung & Mori, arXiv 1907.09682).

The teacher reads the same batch. Where the encoders are equal and the student's is frozen, the audio is encoded once.
"""

from typing import Any

import torch
from torch import nn

from modeling_mac import MacForConditionalGeneration
from processing_mac import MacProcessor
from training_mac.loop.trainer import CaptionTrainer
from training_mac.objectives.captions import caption_trainer_parts
from training_mac.objectives.materials import Materials
from training_mac.recipe.fields import Recipe
from training_mac.recipe.file import Stage


class DistillationTrainer(CaptionTrainer):
    """
    A caption trainer whose student also imitates a teacher.

    Args:
        teacher: MAC to imitate, which is frozen; `check_teacher` must have passed it.
    """

    def __init__(self, *args: Any, teacher: MacForConditionalGeneration, **kwargs: Any):
        super().__init__(*args, **kwargs)
        student = audio_tower_of(self.model)
        frozen = not any(parameter.requires_grad for parameter in student.parameters())
        # A pruning that sets in while the student learns must not reach the teacher.
        self.shares_encoder = frozen and self.recipe.keep_rate is None and same(student, teacher.model.audio_tower)
        if self.shares_encoder:
            teacher.model.audio_tower = student  # one copy in memory
        self.teacher = teacher.requires_grad_(False).to(self.args.device).eval()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the loss of a batch: that of its captions and, where the model trains, that of the imitation."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.shares_encoder and "input_features" in inputs:
            with torch.no_grad(), self.accelerator.autocast():
                encoded = self.teacher.model.audio_tower(inputs.pop("input_features"), return_dict=True)
            inputs["encoder_hidden_states"] = encoded.last_hidden_state
        weights = {"distill": self.recipe.distill_weight, "hidden": self.recipe.distill_hidden_weight}
        asked = {"output_hidden_states": True} if weights["hidden"] else {}
        loss, outputs = super().compute_loss(model, {**inputs, **asked}, True, num_items_in_batch)
        labelled = nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=-100) != -100  # (batch, length)
        with torch.no_grad(), self.accelerator.autocast():
            given = {name: value for name, value in inputs.items() if name != "labels"}
            taught = self.teacher(**given, **asked, logits_to_keep=labelled, use_cache=False)
        total = (1 - weights["distill"]) * loss
        scale = self.share_of_step(labelled, num_items_in_batch)
        if weights["distill"]:
            imitation = imitation_loss(outputs.logits, taught.logits, self.recipe.distill_temperature)
            total = total + weights["distill"] * imitation * scale
        if weights["hidden"]:
            ours, theirs = (one.hidden_states[-1][labelled] for one in (outputs, taught))
            total = total + weights["hidden"] * similarity_loss(ours, theirs) * scale
        return (total, outputs) if return_outputs else total

    def share_of_step(self, labelled: torch.Tensor, num_items: Any) -> Any:
        """Give the factor that turns a mean over this batch's tokens into a part of that over the step's."""
        if num_items is None:
            return 1.0
        devices = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return labelled.sum() / num_items * devices


def make_distillation_trainer(stage: Stage, materials: Materials) -> DistillationTrainer:
    """Make a trainer of the parts that the stage names, with the teacher of `distill_from`."""
    parts = caption_trainer_parts(stage, materials)
    return DistillationTrainer(**parts, teacher=load_teacher(stage.recipe, materials))


def load_teacher(recipe: Recipe, materials: Materials) -> MacForConditionalGeneration:
    """
    Load the teacher in float32.

    Raises:
        ValueError: `check_teacher` refuses it, or the student gets kept encodings of another encoder.
    """
    assert recipe.distill_from is not None  # `check_distillation` made sure of it
    teacher = MacForConditionalGeneration.from_pretrained(recipe.distill_from, dtype=torch.float32)
    check_teacher(materials.processor, MacProcessor.from_pretrained(recipe.distill_from), recipe.distill_from)
    if recipe.cached_epochs and not same(audio_tower_of(materials.model), teacher.model.audio_tower):
        raise ValueError(
            f"`cached_epochs` keeps what the student's encoder says, and {recipe.distill_from} has another encoder."
        )
    return teacher


def check_teacher(student: MacProcessor, teacher: MacProcessor, name: str) -> None:
    """
    Refuse a teacher that would read or write other tokens than the student.

    Args:
        student: Processor of the student.
        teacher: Processor of the teacher.
        name: Folder or Hub id of the teacher.

    Raises:
        ValueError: Vocabulary, audio tokens or front end differ; the message says how.
    """
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        raise ValueError(
            f"`distill_from`: the vocabulary of {name} ({len(teacher.tokenizer)} tokens) differs from the student's "
            f"({len(student.tokenizer)}): logits can be imitated token by token only. A new model takes the "
            f"teacher's with `tokenizer: {name}`."
        )
    for field in ("audio_tokens_per_window", "audio_tokens_per_run"):
        ours, theirs = getattr(student, field), getattr(teacher, field)
        if ours != theirs:
            raise ValueError(f"`distill_from`: {name} has `{field}` {theirs}, the student {ours}; expected the same.")
    ours, theirs = (vars(one.feature_extractor) for one in (student, teacher))
    if differing := sorted(field for field in ours.keys() | theirs.keys() if ours.get(field) != theirs.get(field)):
        raise ValueError(
            f"`distill_from`: {name} hears log-mels of another kind ({', '.join(differing)}) than the student."
        )


def audio_tower_of(model: nn.Module) -> nn.Module:
    """Find the encoder in a MAC, with or without LoRA."""
    return next(module for name, module in model.named_modules() if name.split(".")[-1] == "audio_tower")


def same(one: Any, other: Any) -> bool:
    """Tell whether two encoders have the same configuration and the same weights."""
    if one.config.to_dict() != other.config.to_dict():
        return False
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours)


def imitation_loss(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    Compute T^2 KL(teacher / T || student / T), in nats a token; 0 where the student says what the teacher says.

    Args:
        logits: Logits of the student, (tokens, vocabulary).
        targets: Logits of the teacher, (tokens, vocabulary); rows that only one of them has hold no token.
        temperature: Temperature T of both.
    """
    rows = min(logits.shape[-1], targets.shape[-1])
    ours, theirs = (one[..., :rows].float().div(temperature).log_softmax(-1) for one in (logits, targets))
    return temperature**2 * nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def similarity_loss(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared difference of the tokens' cosines to each other; (tokens, width), any two widths."""
    ours, theirs = (nn.functional.normalize(one.float(), dim=-1) for one in (ours, theirs))
    return (ours @ ours.T - theirs @ theirs.T).square().mean()

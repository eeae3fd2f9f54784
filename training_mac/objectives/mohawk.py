"""
MOHAWK (Bick et al., arXiv 2408.10189): a MAC on a transformer becomes one on discrete Mamba-2, in three stages.

`mohawk_stage` says what a stage compares, the teacher frozen and read in eval mode:
* `matrices`: the mixer's matrix and the attention's, by the Frobenius norm of the difference. Only the rows B, C and
  A_log of in_proj, their convolution and D get a gradient.
* `hidden`: what each block makes of the teacher's input of that block, by the L2 norm a token. The mixers learn.
* `logits`: what the whole model says at labelled tokens, by the teacher's logits. What the recipe names learns.

In the first two each block is on its own, fed the TEACHER's input; the losses of the blocks are summed for one
backward pass. Of several processes each compares its own batch, and their gradients are averaged. What the transformer
brings (embedding, norms, MLPs, head) was copied before the first stage.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from modeling_mac import MacForConditionalGeneration
from modeling_mac.modeling_discrete_mamba2_mac import DiscreteMamba2Mixer, DiscreteMamba2Model
from training_mac.loop.trainer import CaptionTrainer
from training_mac.objectives.captions import caption_trainer_parts
from training_mac.objectives.distillation import DistillationTrainer, load_teacher
from training_mac.objectives.materials import Materials
from training_mac.recipe.file import Stage


class BlockTrainer(CaptionTrainer):
    """
    A trainer of the mixers of a student, block by block.

    Args:
        teacher: MAC on the transformer that the student came from.
        compares: What is compared, 'matrices' or 'hidden'.
    """

    def __init__(self, *args: Any, teacher: MacForConditionalGeneration, compares: str, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.teacher = teacher.requires_grad_(False).to(self.args.device).eval()
        self.teacher.set_attn_implementation("eager")  # the others compute no attention matrices
        self.compares = compares

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the sum of the blocks' losses of a batch, where the model trains; else that of its captions."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        student = self.accelerator.unwrap_model(model)
        given = {name: value for name, value in inputs.items() if name != "labels"}

        def compare(**inputs: Any) -> torch.Tensor:
            with self.accelerator.autocast():  # accelerate has it around the forward that this one stands in for
                return block_losses(student.model.language_model, self.teacher, inputs, self.compares).sum()

        with standing_in(compare, student):
            loss = model(**given)  # of several processes, their wrapper shares the gradients of what it ran
        if num_items_in_batch is not None:  # the Trainer then takes losses for parts of the step's mean, and adds them
            loss = loss / self.args.gradient_accumulation_steps
        return (loss, {}) if return_outputs else loss


@contextmanager
def standing_in(function: Callable, module: nn.Module) -> Iterator[None]:
    """Let a call of the module, or of what wraps it, run a function in place of its forward."""
    own = vars(module).get("forward")
    module.forward = function
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def block_losses(
    student: DiscreteMamba2Model, teacher: MacForConditionalGeneration, inputs: dict[str, Any], compares: str
) -> torch.Tensor:
    """
    Compute the loss of each block with a mixer, (blocks,), fed the teacher's input of that block.

    A block's loss is computed when the teacher has just left the block, so that the matrices of one block at a time
    are held beside what the gradient needs. (transformers' last `hidden_states` is after the final norm, so the blocks
    are asked and not the output.)

    Args:
        student: Language model of the student.
        teacher: Teacher with eager attention.
        inputs: Inputs of the teacher's forward, without labels.
        compares: What is compared, 'matrices' or 'hidden'.
    """
    losses: list[torch.Tensor] = []
    mask = inputs.get("attention_mask")
    blocks = teacher.model.language_model.layers
    attention: dict[str, torch.Tensor] = {}

    def note(module: nn.Module, arguments: tuple, output: tuple) -> None:
        attention["matrix"] = output[1]

    def compare(index: int, hidden: torch.Tensor, output: torch.Tensor) -> None:
        layer: Any = student.layers[index]
        with torch.enable_grad():
            if compares == "matrices":
                mixer = getattr(layer, student.attention_name)
                matrix = mixer.matrix(layer.input_layernorm(hidden), mask)
                losses.append(matrix_distance(matrix, attention.pop("matrix"), mask))
            else:
                losses.append(hidden_distance(layer(hidden, padding_mask=mask), output, mask))

    handles = []
    for index, block in enumerate(blocks):
        if isinstance(getattr(student.layers[index], student.attention_name), DiscreteMamba2Mixer):
            handles.append(getattr(block, student.attention_name).register_forward_hook(note))
            handles.append(
                block.register_forward_hook(lambda _, args, output, index=index: compare(index, args[0], output))
            )
    try:
        with torch.no_grad():
            teacher(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(losses)


def matrix_distance(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """
    Compute the Frobenius norm of the difference of two (batch, heads, query, key), a mean over batch and heads.

    Args:
        mask: Mask of the tokens, (batch, length), 0 at padding, whose queries and keys are left out.
    """
    difference = ours.float() - theirs.float()
    if mask is not None:
        real = mask.to(difference)
        difference = difference * real[:, None, :, None] * real[:, None, None, :]
    return torch.linalg.matrix_norm(difference).mean()


def hidden_distance(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Compute the L2 norm of the difference of two (batch, length, width), a mean over tokens that are no padding."""
    distance = torch.linalg.vector_norm(ours.float() - theirs.float(), dim=-1)
    return distance.mean() if mask is None else distance[mask.bool()].mean()


def make_mohawk_trainer(stage: Stage, materials: Materials) -> CaptionTrainer:
    """
    Make the trainer of one of MOHAWK's stages.

    `check_student_of` has made sure that the student's language model came from the teacher's.
    """
    recipe, model = stage.recipe, materials.model
    teacher = load_teacher(recipe, materials)
    parts = caption_trainer_parts(stage, materials)
    if recipe.mohawk_stage == "logits":
        return DistillationTrainer(**parts, teacher=teacher)
    model.requires_grad_(False)
    for mixer in (one for one in model.modules() if isinstance(one, DiscreteMamba2Mixer)):
        mixer.requires_grad_(True)
        if recipe.mohawk_stage == "matrices":  # which they do not depend on
            mixer.out_proj.requires_grad_(False)
            mixer.z_bias.requires_grad_(False)
    return BlockTrainer(**parts, teacher=teacher, compares=recipe.mohawk_stage)


def make_student(teacher: MacForConditionalGeneration, fields: dict[str, Any]) -> MacForConditionalGeneration:
    """
    Make the student: the teacher with new mixers for its attention, and everything else copied.

    Args:
        teacher: MAC on phi, gpt_neox or llama.
        fields: Fields of `DiscreteMamba2Config` beside `source`.

    Raises:
        ValueError: The language model is of another kind, or a field is wrong.
    """
    text = teacher.config.text_config.to_dict()
    config = teacher.config.to_dict() | {
        "text_config": {**fields, "model_type": "mac_discrete_mamba2", "source": text}
    }
    student = MacForConditionalGeneration(type(teacher.config)(**config))
    prefix = "model.language_model."
    copied = {name.replace(prefix, f"{prefix}backbone."): value for name, value in teacher.state_dict().items()}
    found = student.load_state_dict(copied, strict=False)
    attention = f".{student.model.language_model.attention_name}."
    assert all(attention in name for name in (*found.missing_keys, *found.unexpected_keys))
    student.generation_config = teacher.generation_config
    return student

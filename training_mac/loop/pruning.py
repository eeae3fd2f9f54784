"""A schedule of the encoder's keep rate, which falls from 1 in a stage to fewer patches (arXiv 2504.01690)."""

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.configuration_utils import PreTrainedConfig

from modeling_mac.token_pruning_mac import keep_rate_at
from training_mac.loop.adapters import ends_whole
from training_mac.recipe.fields import Recipe


class KeepRateSchedule(TrainerCallback):
    """
    Sets the encoder's keep rate before each step.

    Args:
        config: Configuration of the encoder, which the keep rate is set in.
        keep_rate: Share of the patches that is kept at the end, from 0 to 1.
        span: Shares of the training, from 0 to 1, between which the rate falls along half a cosine.
    """

    def __init__(self, config: PreTrainedConfig, keep_rate: float, span: Sequence[float]):
        self.config = config
        self.keep_rate = keep_rate
        self.start, self.end = span

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the rate from the step's number alone, so that it is the same wherever a run resumes."""
        progress = (state.global_step / state.max_steps - self.start) / (self.end - self.start)
        self.config.keep_rate = keep_rate_at(min(max(progress, 0.0), 1.0), self.keep_rate)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the last rate, so that the saved model prunes as it learnt to."""
        self.config.keep_rate = self.keep_rate


def learnt_keep_rate(recipes: Sequence[Recipe]) -> float | None:
    """Give the rate that the last of the stages with a schedule ended with; None if no stage has one."""
    rates = [recipe.keep_rate for recipe in recipes if recipe.keep_rate is not None]
    return rates[-1] if rates else None


def check_keep_rates(recipes: Sequence[Recipe]) -> None:
    """
    Refuse schedules that are impossible, or whose rate would be lost.

    Raises:
        ValueError: A schedule is refused; the message names the field and what was expected.
    """
    for recipe in recipes:
        if recipe.keep_rate is None:
            continue
        span = recipe.keep_rate_span
        if not 0 < recipe.keep_rate <= 1:
            raise ValueError(f"`keep_rate` is {recipe.keep_rate}; expected a share above 0, at most 1.")
        if len(span) != 2 or not 0 <= span[0] < span[1] <= 1:
            raise ValueError(
                f"`keep_rate_span` is {list(span)}; expected two shares of the training, the smaller first."
            )
        if recipe.objective == "teacher":
            raise ValueError("`keep_rate` prunes the encoder, and a stage with `objective: teacher` has none.")
        if recipe.cached_epochs:
            raise ValueError("`keep_rate` changes what the encoder gives, so `cached_epochs` cannot keep it.")
        if not ends_whole(recipes):
            raise ValueError("`keep_rate` stands in the model's configuration, which an adapter has none of: add "
                             "`merge_adapter: true`.")  # fmt: skip


def check_encoder(config: PreTrainedConfig, recipes: Sequence[Recipe]) -> None:
    """
    Refuse a schedule for an encoder that cannot prune, or whose connector needs a fixed number of tokens.

    Raises:
        ValueError: The encoder or connector is such a one; the message names it.
    """
    if learnt_keep_rate(recipes) is None:
        return
    if not hasattr(config, "keep_rate"):
        raise ValueError(f"`keep_rate` is for an encoder that prunes, 'mac_eat'; this one is {config.model_type!r}.")
    if config.pruned_tokens != "grid":
        raise ValueError(
            f"`keep_rate` changes while training, but `pruned_tokens` is {config.pruned_tokens!r}, so that the text "
            "would need another number of audio tokens in every step: train with 'grid'."
        )

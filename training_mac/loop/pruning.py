"""Learning with fewer and fewer patches: the encoder's keep rate falls from 1 in a stage (arXiv 2504.01690)."""

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
        config: The encoder's.
        keep_rate: The rate at the end.
        span: Shares of the training between which the rate falls, along half a cosine.
    """

    def __init__(self, config: PreTrainedConfig, keep_rate: float, span: Sequence[float]):
        self.config = config
        self.keep_rate = keep_rate
        self.start, self.end = span

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One value a step, the same wherever a run resumes."""
        progress = (state.global_step / state.max_steps - self.start) / (self.end - self.start)
        self.config.keep_rate = keep_rate_at(min(max(progress, 0.0), 1.0), self.keep_rate)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What is saved prunes as it learnt to."""
        self.config.keep_rate = self.keep_rate


def learnt_keep_rate(recipes: Sequence[Recipe]) -> float | None:
    """The rate that the last of some stages with a schedule ended with."""
    rates = [recipe.keep_rate for recipe in recipes if recipe.keep_rate is not None]
    return rates[-1] if rates else None


def check_keep_rates(recipes: Sequence[Recipe]) -> None:
    """
    Refuse schedules that cannot be, or whose rate would be lost.

    Raises:
        ValueError: says which field, and what was expected.
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
    Refuse a schedule for an encoder that does not prune, or whose connector counts on the number of its tokens.

    Raises:
        ValueError: names what the encoder is.
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

"""Which objectives an audio tower can learn by; a stage that does not fit its tower is refused before it begins."""

import math

from transformers.configuration_utils import PreTrainedConfig

from training_mac.objectives.tags import frames_per_row
from training_mac.objectives.teacher import ROW_FRAMES
from training_mac.recipe.file import Stage


def check_tower(stage: Stage, config: PreTrainedConfig) -> None:
    """
    Refuse an objective, or a field of it, that the audio tower cannot follow.

    Args:
        stage: Stage of the run.
        config: Configuration of the model's audio tower.

    Raises:
        ValueError: The message names the field and the tower.
    """
    recipe, kind = stage.recipe, config.model_type
    if recipe.objective == "masked_patches":
        check_masked_patches(recipe.masked_patches, config)
    if recipe.objective == "embeddings" and kind != "mac_eat":
        raise ValueError(f"`objective: embeddings` teaches single patches of a 'mac_eat'; this tower is {kind!r}.")
    if recipe.objective != "tags" or kind == "mac_eat":
        return
    for name in ("whiten", "kept_patches"):
        if stage.settings.get(name):
            raise ValueError(f"`{name}` is for the patches of a 'mac_eat'; this tower is {kind!r}, which reads all.")
    if recipe.imitate_teachers and frames_per_row(config) != ROW_FRAMES:
        raise ValueError(
            f"`imitate_teachers`: a teacher has a row every {ROW_FRAMES} frames, and this tower, {kind!r}, one every "
            f"{frames_per_row(config)}."
        )


def check_masked_patches(count: int, config: PreTrainedConfig) -> None:
    """Refuse to mask patches of a tower that has no embedding for them, that overlap, or too many of them."""
    if config.model_type != "mac_ssamba":
        raise ValueError(
            f"`objective: masked_patches` is the pretraining of a 'mac_ssamba'; this tower is {config.model_type!r}."
        )
    if config.stride != config.patch_size:
        raise ValueError(
            f"`objective: masked_patches` needs patches that do not overlap: `stride` is {config.stride}, and "
            f"`patch_size` {config.patch_size}."
        )
    patches = math.prod(config.grid)
    if not 0 < count < patches - 1:
        raise ValueError(f"`masked_patches` is {count}; expected 1 to {patches - 2}, of {patches} patches a window.")

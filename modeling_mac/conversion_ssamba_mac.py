"""A pretrained or fine-tuned SSAMBA, as its authors saved it -> our configuration and weights."""

import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from .configuration_mac import SsambaConfig
from .weight_files_mac import locate, read_config, read_weights, refuse_if_any


MIXER = (
    "in_proj.weight", "out_proj.weight", "A_log", "A_b_log", "D", "D_b",
    *(f"{part}{way}.{kind}" for part in ("conv1d", "dt_proj") for way in ("", "_b") for kind in ("weight", "bias")),
    "x_proj.weight", "x_proj_b.weight",
)  # fmt: skip
PRETRAINING = {"mask_embed": "mask_embed"} | {
    f"{theirs}.{layer}.{kind}": f"{ours}.{layer}.{kind}"
    for theirs, ours in (("cpredlayer", "contrastive_head"), ("gpredlayer", "reconstruction_head"))
    for layer in (0, 2) for kind in ("weight", "bias")
}  # fmt: skip
HEAD = {"mlp_head.0.weight": "fc_norm.weight", "mlp_head.0.bias": "fc_norm.bias", "mlp_head.1.weight": "head.weight",
        "mlp_head.1.bias": "head.bias"}  # fmt: skip
# Names of weights that belong to pretraining, and of the head for ImageNet's classes, which comes from Vim's code and
# which nothing uses.
NOT_OF_THE_ENCODER = re.compile(r"v\.head\.|mask_embed$|cpredlayer\.|gpredlayer\.|p_input_[ft]dim$|mlp_head\.")
PATCH = 16  # side of a patch, in frames and in mel bins, of every released model
FINE_TUNED_STRIDE = 10  # distance between patches, in frames and in mel bins, in the authors' fine-tuning


def load_ssamba(source: str | PathLike, with_head: bool = False) -> tuple[SsambaConfig, dict[str, torch.Tensor]]:
    """
    Read SSAMBA's configuration and weights for `SsambaModel` or `SsambaForAudioClassification`.

    Args:
        source: Local file, folder or Hub id of the authors' `.pth`, pretrained or fine-tuned, or of a folder that this
            package saved.
        with_head: Whether the weights of the classification head are wanted, too.

    Raises:
        ValueError: The source cannot be read, or a weight is missing or left over.
    """
    path = locate(source)
    config, weights = read_config(path), read_weights(path)
    if config.get("model_type") == SsambaConfig.model_type:
        if not with_head:
            weights = {name.removeprefix("ssamba."): weights[name] for name in weights if name not in HEAD.values()}
        return SsambaConfig.from_dict(config), weights
    return convert_ssamba_state_dict(weights, with_head)


def convert_ssamba_state_dict(
    state_dict: Mapping[str, Any], with_head: bool = False, for_pretraining: bool = False
) -> tuple[SsambaConfig, dict[str, torch.Tensor]]:
    """
    Rename upstream's weights (ssamba, commit 019b276) to ours.

    Args:
        state_dict: Tensors by upstream's names, of a pretrained or a fine-tuned model.
        with_head: Whether the names are those of `SsambaForAudioClassification`, head included.
        for_pretraining: Whether they are those of `SsambaForPreTraining`, prediction heads included. With neither
            they are those of `SsambaModel`.

    Raises:
        ValueError: A weight is missing or unknown.
    """
    weights = {name.removeprefix("module."): weight for name, weight in state_dict.items()}
    depth = max((int(found[1]) + 1 for name in weights if (found := re.match(r"v\.layers\.(\d+)\.", name))), default=1)
    names = {"v.cls_token": "embeddings.cls_token", "v.pos_embed": "embeddings.positions"}
    for kind in ("weight", "bias"):
        names[f"v.patch_embed.proj.{kind}"] = f"embeddings.patch_embedding.{kind}"
        names[f"v.norm_f.{kind}"] = f"norm_f.{kind}"
    for index in range(depth):
        for part in ("norm.weight", "norm.bias", *(f"mixer.{part}" for part in MIXER)):
            names[f"v.layers.{index}.{part}"] = f"layers.{index}.{part}"
    encoder = set(names)
    if with_head or for_pretraining:
        names = {name: f"ssamba.{ours}" for name, ours in names.items()} | (HEAD if with_head else PRETRAINING)
    refuse_if_any(
        "this SSAMBA checkpoint",
        missing=[f"{name} (our {ours})" for name, ours in names.items() if name not in weights],
        unexpected=[name for name in weights if name not in encoder and not NOT_OF_THE_ENCODER.match(name)],
    )
    return config_of(weights, depth, with_head), {ours: weights[name] for name, ours in names.items()}


def config_of(weights: Mapping[str, torch.Tensor], depth: int, with_head: bool) -> SsambaConfig:
    """
    Build the configuration that upstream's weights need.

    The stride and the length of the window are not stored; they follow from the number of positions.
    """
    hidden_size, positions = weights["v.cls_token"].shape[-1], weights["v.pos_embed"].shape[1] - 1
    inner, state_size = weights["v.layers.0.mixer.A_log"].shape
    # The 128 mel bins hold 8 rows of patches at the stride of 16, and 12 rows at the stride of 10.
    stride = PATCH if "mask_embed" in weights or positions % 12 else FINE_TUNED_STRIDE
    frequencies = (128 - PATCH) // stride + 1
    if positions % frequencies:
        raise ValueError(f"v.pos_embed holds {positions} patches, which are no grid of {frequencies} frequency rows.")
    shortest = (positions // frequencies - 1) * stride + PATCH
    return SsambaConfig(
        hidden_size=hidden_size,
        num_hidden_layers=depth,
        state_size=state_size,
        conv_kernel=weights["v.layers.0.mixer.conv1d.weight"].shape[-1],
        expand=inner // hidden_size,
        stride=stride,
        window_frames=-(-shortest // PATCH) * PATCH,
        **({"num_labels": len(weights["mlp_head.1.bias"])} if with_head else {}),
    )


__all__ = ["convert_ssamba_state_dict", "load_ssamba"]

"""Conversion of a pretrained EAT, as trained with fairseq or as released on the Hub."""

import re
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import torch

from .configuration_mac import EatConfig
from .modeling_eat import sin_cos_positions
from .weight_files_mac import locate, read_config, read_weights, refuse_if_any


BLOCK_PARTS = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
HEAD_WEIGHTS = ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
# First parts of the names of weights that serve EAT's pretraining and not its encoder.
PRETRAINING_PARTS = {"_ema", "center", "cls_proj", "decoder", "recon_proj"}
POSITIONS = "fixed_positional_encoder.positions"
FREQUENCY_PATCHES = 8  # 128 mel bins in patches of 16
UPSTREAM_HEADS = {768: 12, 1024: 16}  # hidden size -> attention heads of EAT-base and EAT-large


def load_eat(source: str | PathLike, with_head: bool = False) -> tuple[EatConfig, dict[str, torch.Tensor]]:
    """
    Read EAT's configuration and weights, for `EatModel` or, with the head, `EatForAudioClassification`.

    Args:
        source: Local file, folder or Hub id of fairseq's checkpoint, of the released safetensors, or of a folder that
            this package saved.
        with_head: Whether the weights of the classification head are wanted, too.

    Raises:
        ValueError: The source cannot be read or is no EAT; see also `convert_eat_state_dict`.
    """
    path = locate(source)
    config, weights = read_config(path), read_weights(path)
    if config.get("model_type") != EatConfig.model_type:
        weights = convert_eat_state_dict(weights, with_head)
        return eat_config_from_state_dict(weights, config), weights
    if not with_head:
        weights = {name.removeprefix("eat."): value for name, value in weights.items() if name not in HEAD_WEIGHTS}
    return EatConfig.from_dict(config), weights


def convert_eat_state_dict(state_dict: Mapping[str, Any], with_head: bool = False) -> dict[str, torch.Tensor]:
    """
    Rename upstream's weights (EAT, commit 06c1c34) to ours; what only pretraining needs is left out.

    Args:
        state_dict: Tensors by upstream's names, of a model that fairseq pretrained or fine-tuned, or that was
            released as safetensors.
        with_head: Whether the names are those of `EatForAudioClassification`, head included, or of `EatModel`.

    Returns:
        The tensors by our names: every weight of that model and no other. No tensor is copied.

    Raises:
        ValueError: A weight is missing or unknown, or the positions are not those of EAT.
    """
    keys: dict[str, str] = {}  # released name -> key in the file
    unexpected = []
    for key, value in state_dict.items():
        name = released_name(key)
        if name == POSITIONS:
            check_positions(key, value)
        elif name in keys:  # two models in one file
            unexpected.append(key)
        elif name.split(".")[0] not in PRETRAINING_PARTS:
            keys[name] = key
    encoder = eat_names(keys)
    names = {name: f"eat.{ours}" for name, ours in encoder.items()} if with_head else encoder
    if with_head:
        names |= {name: name for name in HEAD_WEIGHTS}
    refuse_if_any(
        "this EAT checkpoint",
        missing=[f"{name} (our {ours})" for name, ours in names.items() if name not in keys],
        unexpected=unexpected + [keys[name] for name in keys if name not in encoder and name not in HEAD_WEIGHTS],
    )
    return {ours: state_dict[keys[name]] for name, ours in names.items()}


def released_name(key: str) -> str:
    """Bring a weight's name, in fairseq's or the released style, to the released one without `model.` in front."""
    # fairseq names the one modality that EAT has after images, since it grew out of data2vec's code for these.
    name = key.removeprefix("model.").removeprefix("modality_encoders.IMAGE.")
    return name.replace("context_encoder.norm.", "pre_norm.")


def eat_names(names: Iterable[str]) -> dict[str, str]:
    """
    Give the name in this package for each released name of an encoder's weights.

    Args:
        names: Released names in a file; the deepest block among them tells the depth of the encoder.
    """
    depth = max((int(match[1]) + 1 for name in names if (match := re.match(r"blocks\.(\d+)\.", name))), default=1)
    modules = {"local_encoder.proj": "embeddings.patch_embedding", "pre_norm": "embeddings.layer_norm"}
    for index in range(depth):
        for part in BLOCK_PARTS:
            modules[f"blocks.{index}.{part}"] = f"layers.{index}.{part.replace('attn.', 'attention.')}"
    weights = {f"{name}.{kind}": f"{ours}.{kind}" for name, ours in modules.items() for kind in ("weight", "bias")}
    return {"extra_tokens": "embeddings.cls_token"} | weights


def check_positions(key: str, positions: torch.Tensor) -> None:
    """
    Refuse a position table, (1, rows, dim), other than the fixed one, which the model computes itself.

    Early files hold only the first rows of the table.
    """
    expected = sin_cos_positions(positions.shape[-1], FREQUENCY_PATCHES)
    expected = expected[:, : positions.shape[1]] if positions.dim() == 3 else expected
    # A table that was saved in half precision differs from ours by that type's rounding.
    tolerance = max(1e-4, torch.finfo(positions.dtype).eps)
    if positions.shape != expected.shape or not torch.allclose(positions.float(), expected, rtol=0, atol=tolerance):
        raise ValueError(
            f"{key} {tuple(positions.shape)} is not EAT's fixed sin-cos table (1, rows, dim) with {FREQUENCY_PATCHES} "
            "rows a time step: the checkpoint belongs to another model."
        )


def eat_config_from_state_dict(
    state_dict: Mapping[str, torch.Tensor], released: Mapping[str, Any] | None = None
) -> EatConfig:
    """
    Build the configuration that converted weights need.

    Args:
        state_dict: Tensors by our names, as `convert_eat_state_dict` returns them.
        released: Content of the config.json that came with the weights; it counts if its `model_type` is "eat".

    Raises:
        ValueError: The number of attention heads is neither there nor known, or the blocks are pre-norm.
    """
    weights = {name.removeprefix("eat."): weight for name, weight in state_dict.items()}
    released = released if released is not None and released.get("model_type") == "eat" else {}
    if released.get("layer_norm_first"):
        raise ValueError("The EAT checkpoint's config.json says `layer_norm_first`: only post-norm EAT is supported.")
    hidden_size = weights["embeddings.cls_token"].shape[-1]
    num_heads = released.get("num_heads", UPSTREAM_HEADS.get(hidden_size))
    if num_heads is None:
        raise ValueError(
            f"An EAT of width {hidden_size} is neither base (768) nor large (1024), and weights do not tell how many "
            'attention heads it has: put a config.json with "model_type": "eat" and "num_heads" beside them.'
        )
    labels = {"num_labels": len(weights["head.bias"])} if "head.bias" in weights else {}
    return EatConfig(
        hidden_size=hidden_size,
        num_hidden_layers=released.get("depth", sum(name.endswith("mlp.fc1.bias") for name in weights)),
        num_attention_heads=num_heads,
        intermediate_size=len(weights["layers.0.mlp.fc1.bias"]),
        patch_size=weights["embeddings.patch_embedding.weight"].shape[-1],
        layer_norm_eps=released.get("norm_eps", 1e-6),
        **labels,
    )


__all__ = ["convert_eat_state_dict", "eat_config_from_state_dict", "load_eat"]

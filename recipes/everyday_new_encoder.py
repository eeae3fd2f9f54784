"""
A new encoder in a MAC that has learnt to speak, and the head of its tags as the first units of the connector.

The head learns from the tokens of a row of patches side by side, with weights of its own for each column. That is what
the connector `concat` reads, so that the head can stand there as it is.
"""

import copy

import torch
from everyday_pupil import DROP_PATH
from torch import nn

from modeling_mac import EatModel, MacForConditionalGeneration
from training_mac.objectives.embeddings import EmbeddingPupil


def check_model(model: MacForConditionalGeneration, tags: int) -> None:
    """
    Refuse a MAC whose connector cannot give the scores of so many tags.

    Raises:
        ValueError: Its encoder is no EAT, its connector reads other tokens than a row's side by side, or has fewer
            units.
    """
    if not isinstance(model.model.audio_tower, EatModel):
        raise ValueError("its encoder is no EAT.")
    if (kind := model.config.connector_type) != "concat":
        raise ValueError(f"its `connector_type` is {kind}; the scores of the tags are told from what `concat` reads.")
    if (units := len(model.model.connector.linear_1.weight)) < tags:
        raise ValueError(f"its connector has {units} units; the scores of {tags} tags need as many.")


def new_tower(model: MacForConditionalGeneration, depth: int, width: int, heads: int) -> EatModel:
    """Make a random encoder of another size for the windows of a MAC."""
    config = copy.deepcopy(model.config.audio_config)
    config.num_hidden_layers, config.hidden_size, config.num_attention_heads = depth, width, heads
    config.intermediate_size, config.drop_path_rate = 4 * width, DROP_PATH
    return EatModel(config)


@torch.no_grad()
def put_together(model: MacForConditionalGeneration, tower: EatModel, head: nn.Linear) -> MacForConditionalGeneration:
    """
    Put another encoder into a MAC, with the scores of the tags as the first units of its connector.

    Args:
        model: MAC whose language model and second layer of the connector are kept.
        tower: Encoder.
        head: Tells the scores of the tags from the tokens of a row side by side, (columns * dim) -> (tags).
    """
    config = copy.deepcopy(model.config)
    config.audio_config = copy.deepcopy(tower.config)
    new = MacForConditionalGeneration(config)
    new.generation_config = model.generation_config
    replaced = ("model.audio_tower.", "model.connector.linear_1.")
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith(replaced)}
    new.load_state_dict(kept, strict=False)
    new.model.audio_tower.load_state_dict(tower.state_dict())
    layer, tags = new.model.connector.linear_1, len(head.weight)
    nn.init.zeros_(layer.weight)  # units that are no scores give the GELU of 0, which is 0
    nn.init.zeros_(layer.bias)
    layer.weight[:tags] = head.weight
    layer.bias[:tags] = head.bias + EmbeddingPupil.doubt
    return new.eval()

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


QUIET = -6.0  # greatest score of a tag in padding: less likely than in one row of four hundred
RIDGE = 0.01  # share of the tokens' mean variance that is added to it, which keeps the correction small


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


def head_of(model: MacForConditionalGeneration, tags: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The head that `put_together` put into a connector: weight, (columns * dim, tags), and bias, (tags,)."""
    layer = model.model.connector.linear_1
    return layer.weight[:tags].detach().mT, layer.bias[:tags].detach() - EmbeddingPupil.doubt


@torch.no_grad()
def quiet_padding(model: MacForConditionalGeneration, rows: torch.Tensor, heard: torch.Tensor, tags: int) -> None:
    """
    Have the scores of the tags say of padding that nothing is heard, in place, and of all else what they say now.

    Only rows of sounds have taught a head, so that of what comes after the end of a sound it may say anything. A
    linear correction, a ridge regression on rows of both, is added to it.

    Args:
        model: MAC whose connector's first units are the scores.
        rows: Tokens of rows of patches side by side, (rows, columns * dim).
        heard: Which of them are of a sound; the others are padding, (rows,).
        tags: Number of tags.
    """
    weight, bias = head_of(model, tags)
    missing = (QUIET - (rows @ weight + bias)).clamp(max=0)  # (rows, tags)
    missing[heard] = 0
    centre, usual = rows.mean(0), missing.mean(0)
    centred = rows - centre
    moments = centred.mT @ centred
    moments.diagonal().add_(RIDGE * moments.diagonal().mean())
    change = torch.linalg.solve(moments, centred.mT @ (missing - usual))  # (columns * dim, tags)
    layer = model.model.connector.linear_1
    layer.weight[:tags] += change.mT
    layer.bias[:tags] += usual - centre @ change

"""What the tests of captured tokens share: the sizes of a model, and how it decodes."""

import torch

from modeling_mac.cache_mac import StateCache
from modeling_mac.modeling_mamba2_mac import Mamba2MacModel


SIZES = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 16,
    "n_groups": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip


def decode(model: Mamba2MacModel, ids: torch.Tensor, cache) -> torch.Tensor:
    """Outputs, (batch, length, width), of tokens that are decoded one by one after a cache."""
    embeddings = model.get_input_embeddings()(ids)
    steps = [model(inputs_embeds=token, cache=cache, use_cache=True) for token in embeddings.split(1, dim=1)]
    return torch.cat([step.last_hidden_state for step in steps], dim=1)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def assert_same_cache(actual: StateCache, expected: StateCache) -> None:
    for layer, other in zip(actual.layers, expected.layers, strict=True):
        assert_same(layer.conv_states[0], other.conv_states[0])
        assert_same(layer.recurrent_states[0], other.recurrent_states[0])


def read(model: Mamba2MacModel, ids: torch.Tensor) -> StateCache:
    return model(ids, use_cache=True).cache

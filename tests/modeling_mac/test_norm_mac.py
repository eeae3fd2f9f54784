"""The norms against those of transformers, with and without gradients."""

import pytest
import torch
from transformers.models.mamba2.modeling_mamba2 import Mamba2RMSNorm, MambaRMSNormGated

from modeling_mac.norm_mac import GatedRMSNorm, RMSNorm


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_are_those_of_transformers_and_change_no_input(dtype, gradients):
    tokens, gate = torch.randn(2, 2, 5, 16).to(dtype).requires_grad_(gradients)
    pairs = [
        (RMSNorm(16, eps=1e-5), Mamba2RMSNorm(16, eps=1e-5), [tokens]),
        (GatedRMSNorm(16, 16, 1e-5), MambaRMSNormGated(16, 16, 1e-5), [tokens, gate]),
    ]
    for ours, theirs, inputs in pairs:
        ours.weight.data = theirs.weight.data = torch.rand(16).to(dtype)
        kept = [tensor.detach().clone() for tensor in inputs]
        with torch.set_grad_enabled(gradients):
            output, expected = ours(*inputs), theirs(*inputs)
        torch.testing.assert_close(output, expected)
        assert output.dtype == expected.dtype and output.requires_grad == gradients
        assert all(torch.equal(tensor, before) for tensor, before in zip(inputs, kept, strict=True))

"""The shifted multiply-adds against torch's convolution."""

import pytest
import torch
from torch import nn

from modeling_mac.causal_conv_mac import causal_conv, causal_conv_silu


def make_inputs(kernel: int, length: int = 9, bias: bool = True) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(length)
    shapes = [(2, kernel - 1 + length, 5), (5, kernel), (5,)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    return inputs if bias else [*inputs[:2], None]


def reference(padded: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return nn.functional.conv1d(padded.mT, weight.unsqueeze(1), bias, groups=len(weight)).mT


@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_a_convolution(kernel, length, bias):
    inputs = make_inputs(kernel, length, bias)
    torch.testing.assert_close(causal_conv(*inputs), reference(*inputs))
    assert torch.autograd.gradcheck(causal_conv, tuple(inputs))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("length", [1, 2, 9])
@torch.no_grad()
def test_without_gradients_nothing_is_padded(length, before, bias):
    """Of three tokens before the first one, so many are there."""
    padded, weight, bias = make_inputs(4, length, bias)
    padded[:, : 3 - before] = 0
    tokens = padded[:, 3 - before :]
    kept = tokens.clone()
    output = causal_conv_silu(tokens, length, weight, bias)
    torch.testing.assert_close(output, nn.functional.silu(reference(padded, weight, bias)))
    assert torch.equal(tokens, kept)


def test_packed_sequences_do_not_see_each_other():
    inputs = make_inputs(4)
    seq_idx = torch.tensor([[0] * 5 + [1] * 2 + [2] * 5, [3] * 4 + [8] * 8])
    output = causal_conv(*inputs, seq_idx)
    padded, weight, bias = inputs
    alone = torch.cat([padded.new_zeros(1, 3, 5), padded[:1, 5:7]], dim=1)
    torch.testing.assert_close(output[:1, 2:4], reference(alone, weight, bias))
    assert torch.autograd.gradcheck(causal_conv, (*inputs, seq_idx))


def test_compiles_into_one_graph():
    inputs = make_inputs(4)
    compiled = torch.compile(causal_conv, fullgraph=True, backend="aot_eager")
    expected, actual = (
        torch.autograd.grad(function(*inputs).pow(3).sum(), inputs) for function in (causal_conv, compiled)
    )
    torch.testing.assert_close(actual, expected)

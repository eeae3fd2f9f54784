"""The kernels are optional, and tokens are copied only where the convolution's could not read them."""

import sys

import torch

from modeling_mac.cuda_kernels_mac import as_conv_kernel_takes, cuda_kernels


def test_kernels_are_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    cuda_kernels.cache_clear()
    assert cuda_kernels() is None
    cuda_kernels.cache_clear()


def test_tokens_are_copied_only_where_they_must_be():
    """Channels side by side, and tokens at multiples of eight."""
    wide = torch.randn(2, 5, 24)
    assert as_conv_kernel_takes(wide[..., :16]).data_ptr() == wide.data_ptr()
    for unfit in (wide[..., :16].mT.contiguous().mT, torch.randn(2, 5, 20)[..., :16]):
        taken = as_conv_kernel_takes(unfit)
        assert torch.equal(taken, unfit) and taken.is_contiguous() and taken.data_ptr() != unfit.data_ptr()

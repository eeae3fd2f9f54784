"""
Products of some rows with a weight of 8 bits, in integers, from a copy of the weight that oneDNN lays out for them.

A number of a row is rounded to 16 bits, and its high and its low byte are rows of their own, which the processor
multiplies by the 8 bits exactly. Both bytes come of one addition: beside a large number a float keeps an integer in
its last bits.
"""

from functools import lru_cache

import torch


GREATEST = 127 * 256  # integer that the greatest number of a row becomes
MIDDLE = 128  # byte that stands for nought
# A float from 2**23 to 2**24 has steps of one. Of this one, and of what is added to it, the last two bytes are the sum
# of the integer and of the middle of both bytes.
IN_LAST_BITS = torch.tensor(3 * 2.0**22 + MIDDLE * 256 + MIDDLE, dtype=torch.float32, device="cpu")
NO_OFFSET = torch.zeros(1, dtype=torch.int64, device="cpu")


def pack(weight: torch.Tensor) -> torch.Tensor:
    """Lay a weight of 8 bits, (out, in), out for `multiply_packed`: a copy that only oneDNN reads."""
    return torch.ops.onednn.qlinear_prepack(weight, None)


def multiply_packed(rows: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """
    Multiply rows by a weight of 8 bits, exactly but for rounding the rows to 16 bits.

    Args:
        rows: (rows, in), float32, contiguous.
        packed: The weight, (out, in), by `pack`.
        scale: Scales of its rows, (out,), float32.

    Returns:
        (rows, out), float32.
    """
    number, columns = rows.shape
    greatest = rows.abs().amax(1, keepdim=True)  # a third of the time of `vector_norm`
    # A row of zeros becomes NaN here, whose last bytes are numbers like any other, and is multiplied by nought below.
    integers = torch.addcdiv(IN_LAST_BITS, rows, greatest, value=GREATEST).view(torch.int32)
    bytes_of_rows = rows.new_empty(2 * number, columns, dtype=torch.uint8)
    bytes_of_rows[:number] = integers  # of an integer the lowest byte is left
    bytes_of_rows[number:] = integers.bitwise_right_shift_(8)
    # Private operators of torch, which its compiler calls for quantised models. The activations' scale and middle,
    # then the weight's; no bias; scale, middle and dtype of the output; and nothing done to it.
    sums = torch.ops.onednn.qlinear_pointwise.default(
        bytes_of_rows, 1 / GREATEST, MIDDLE, packed, scale, NO_OFFSET, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return torch.add(sums[:number], sums[number:], alpha=256).mul_(greatest)


@lru_cache
@torch.inference_mode()
def can_pack() -> bool:
    """Tell whether this release of torch has the operators, and whether they compute here what is asked of them."""
    rows = torch.linspace(-1, 1, 3 * 64).view(3, 64)
    weight = (torch.arange(32 * 64) * 37 % 255 - 127).view(32, 64)
    scale = torch.linspace(0.5, 2, 32)
    try:
        product = multiply_packed(rows, pack(weight.to(torch.int8)), scale)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    expected = rows @ weight.float().t() * scale
    return product.shape == expected.shape and bool((product - expected).norm() < 1e-3 * expected.norm())


__all__ = ["can_pack", "multiply_packed", "pack"]

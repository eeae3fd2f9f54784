"""
Products of rows with a weight of 8 bits, in integers, from a copy of the weight that oneDNN lays out for them.

Of few rows a number is rounded to 16 bits, and its high and its low byte are rows of their own, which the processor
multiplies by the 8 bits exactly. Both bytes come of one addition: beside a large number a float keeps an integer in
its last bits. Of many rows, whose products take longer than reading the weight does, most are rounded to 8 bits.
"""

from functools import lru_cache

import torch


GREATEST = 127 * 256  # integer that the greatest number of a row becomes
MIDDLE = 128  # byte that stands for nought
# A float from 2**23 to 2**24 has steps of one. Of this one, and of what is added to it, the last two bytes are the sum
# of the integer and of the middle of both bytes.
IN_LAST_BITS = torch.tensor(3 * 2.0**22 + MIDDLE * 256 + MIDDLE, dtype=torch.float32, device="cpu")
GREATEST_BYTE = 127
IN_BYTE = torch.tensor(MIDDLE + 0.5, dtype=torch.float32, device="cpu")  # what is left of a sum with it is rounded
# How many times as large as the root mean square of a row its greatest number may be for 8 bits: they then err by
# 3.6 % of the product at most, and by 0.8 % where the numbers are spread as most are. What a gate lets through stands
# out more, up to 40 times in what enters `out_proj` of a Mamba-2 of 130m that was trained a little.
OUTSTANDING = 16
AT_ONCE = 1024  # rows: what is made of more does not stay in the caches, and its memory is asked for anew each time
NO_OFFSET = torch.zeros(1, dtype=torch.int64, device="cpu")


def pack(weight: torch.Tensor) -> torch.Tensor:
    """Lay a weight of 8 bits, (out, in), out for `multiply_packed`: a copy that only oneDNN reads."""
    return torch.ops.onednn.qlinear_prepack(weight, None)


def multiply_packed(rows: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """
    Multiply rows by a weight of 8 bits, exactly but for rounding the rows to 16 bits.

    Args:
        rows: (rows, in), contiguous.
        packed: The weight, (out, in), by `pack`.
        scale: Scales of its rows, (out,), float32.

    Returns:
        (rows, out), in the dtype of `rows`.
    """
    dtype, rows = rows.dtype, rows.float()
    number, columns = rows.shape
    greatest = rows.abs().amax(1, keepdim=True)  # a third of the time of `vector_norm`
    # A row of zeros becomes NaN here, whose last bytes are numbers like any other, and is multiplied by nought below.
    integers = torch.addcdiv(IN_LAST_BITS, rows, greatest, value=GREATEST).view(torch.int32)
    bytes_of_rows = rows.new_empty(2 * number, columns, dtype=torch.uint8)
    bytes_of_rows[:number] = integers  # of an integer the lowest byte is left
    bytes_of_rows[number:] = integers.bitwise_right_shift_(8)
    sums = multiply_bytes(bytes_of_rows, 1 / GREATEST, packed, scale, torch.float32)
    return torch.add(sums[:number], sums[number:], alpha=256).mul_(greatest).to(dtype)


def multiply_packed_many(rows: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """
    Multiply many rows by a weight of 8 bits, in half of the time: exactly but for rounding them to 8 bits.

    A row whose greatest number stands out keeps its 16 bits, since there the steps would be too long for the others.
    What becomes of a row does not depend on those beside it.

    Args:
        rows: (rows, in).
        packed, scale: As in `multiply_packed`.

    Returns:
        (rows, out), in the dtype of `rows`.
    """
    if len(rows) > AT_ONCE:
        return torch.cat([multiply_packed_many(piece, packed, scale) for piece in rows.split(AT_ONCE)])
    if rows.dtype not in (torch.float32, torch.bfloat16):  # oneDNN writes no other
        return multiply_packed_many(rows.float(), packed, scale).to(rows.dtype)
    greatest = rows.abs().amax(1, keepdim=True).float()
    size = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float32)
    stands_out = (greatest > OUTSTANDING * rows.shape[1] ** -0.5 * size).squeeze(1)
    if not stands_out.any():
        return multiply_rounded(rows, greatest, packed, scale)
    if stands_out.all():
        return multiply_packed(rows, packed, scale)
    others = ~stands_out
    output = rows.new_empty(len(rows), len(scale))
    output[others] = multiply_rounded(rows[others], greatest[others], packed, scale)
    output[stands_out] = multiply_packed(rows[stands_out], packed, scale)
    return output


def multiply_rounded(
    rows: torch.Tensor, greatest: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """`multiply_packed_many` without exceptions, of rows whose `greatest` numbers, (rows, 1), are known."""
    # A row of zeros becomes NaN here, too.
    bytes_of_rows = torch.addcdiv(IN_BYTE, rows.float(), greatest, value=GREATEST_BYTE).to(torch.uint8)
    return multiply_bytes(bytes_of_rows, 1 / GREATEST_BYTE, packed, scale, rows.dtype).mul_(greatest)


def multiply_bytes(
    rows: torch.Tensor, step: float, packed: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Multiply rows of bytes, whose middle is `MIDDLE` and whose steps are so long, by a weight of 8 bits."""
    # Private operators of torch, which its compiler calls for quantised models. The activations' scale and middle,
    # then the weight's; no bias; scale, middle and dtype of the output; and nothing done to it.
    return torch.ops.onednn.qlinear_pointwise.default(
        rows, step, MIDDLE, packed, scale, NO_OFFSET, None, 1.0, 0, dtype, "none", [], ""
    )


@lru_cache
@torch.inference_mode()
def can_pack() -> bool:
    """Tell whether this release of torch has the operators, and whether they compute here what is asked of them."""
    rows = torch.linspace(-1, 1, 3 * 64).view(3, 64)
    weight = (torch.arange(32 * 64) * 37 % 255 - 127).view(32, 64)
    scale = torch.linspace(0.5, 2, 32)
    expected = rows @ weight.float().t() * scale
    try:
        packed = pack(weight.to(torch.int8))
        return all(
            is_near(multiply(rows.to(dtype), packed, scale), expected, error)
            for multiply, dtype, error in (
                (multiply_packed, torch.float32, 1e-3),
                (multiply_packed_many, torch.float32, 2e-2),
                (multiply_packed_many, torch.bfloat16, 2e-2),
            )
        )
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


def is_near(product: torch.Tensor, expected: torch.Tensor, error: float) -> bool:
    """Tell whether a product has the shape that is expected, and its numbers but for such a share."""
    return product.shape == expected.shape and bool((product.float() - expected).norm() < error * expected.norm())


__all__ = ["can_pack", "multiply_packed", "multiply_packed_many", "pack"]

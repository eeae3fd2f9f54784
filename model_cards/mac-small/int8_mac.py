"""
Weights in 8 bits: a quarter of the file and of the memory that a decoded token reads.

`from_pretrained(folder, quantization_config=Int8Config())` rounds the linear layers and the embeddings of a model;
`save_pretrained` then writes the rounded weights, and `from_pretrained` loads them without a word. A row of a weight,
which makes one output channel, has one scale. Where the processor has instructions for products of integers, it
multiplies so more than one row of activations, or one by a large weight, from a copy of the weight; many rows are
mostly rounded to 8 bits for it. Elsewhere few rows, as decoding has them, are multiplied in bf16 by an operator of
torch that reads the 8 bits as they are, and for many the weight is made float again, for one layer at a time: bf16
where the processor multiplies it faster, float32 otherwise.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

from .packed_mac import can_pack, multiply_packed, multiply_packed_many, pack
from .product_mac import product


METHOD = "mac_int8"


def has_one_of(*features: str) -> bool:
    """Tell whether the processor has one of these sets of instructions; no where torch does not know it."""
    # Private functions of torch, of which older releases have none.
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in features)
    return any(ask is not None and ask() for ask in asked)


FAST_BF16 = has_one_of("avx512_bf16", "amx_tile")  # bf16 at twice the speed of float32
# Integers of 8 bits at four times its speed. Without these instructions oneDNN's sums of such products may overflow.
FAST_INTEGERS = torch.backends.mkldnn.is_available() and has_one_of("vnni")
BLOCK_ROWS = 4  # rows that the operator on 8 bits and bf16 takes at a time; for the next ones it starts again
# Rows up to which multiplying by the 8 bits as they are is the faster way on a CPU; in integers up to these without
# loss, since half of the bits would not be faster where reading the weight takes the time.
FEW_ROWS = 64 if FAST_INTEGERS else 12 if FAST_BF16 else 32
# Weights below which a layer is always multiplied in float: they stay in the processor's caches, so that reading fewer
# bits gains nothing, while bf16 changes some captions (of mac-tiny 2 of a hundred).
SMALL = 2**19
VECTOR = 32  # numbers that it reads at a time, past the end of a row of another length, and only from aligned memory
LARGE = 2**24  # weights from which on integers are the faster way for one row, too: in a head, but in no block
LEAST_SCALE = 1e-30  # of a row of zeros
LOW_STEPS = 254  # low steps in a high one: half a high step, the most that is left of a number, is 127 of them
# Mamba-1 asks for the dtype of this layer, whose outputs stand in an exponent and stay in float32.
KEPT = "dt_proj"


class Int8Config(QuantizationConfigMixin):
    """The quantisation of this file, which has no options; for `from_pretrained(..., quantization_config=...)`."""

    def __init__(self, **kwargs: Any):
        self.quant_method = METHOD


def round_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Round a weight, (rows, columns), to 8 bits.

    Returns:
        The rounded weight, int8, and the scale of every row, (rows,), a number that bf16 holds exactly.
    """
    scale = (weight.float().abs().amax(1) / 127).clamp(min=LEAST_SCALE).bfloat16()
    rounded = (weight.float() / scale.float().unsqueeze(1)).round().clamp(-127, 127)
    return rounded.to(torch.int8), scale.to(weight.dtype)


@lru_cache
def make_ones(number: int) -> torch.Tensor:
    """Ones, (number,), in bf16 on the CPU: the same tensor at every call, which nobody may change."""
    return torch.ones(number, dtype=torch.bfloat16, device="cpu")


def multiply_int8(
    input: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    ones: torch.Tensor,
    packed: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Multiply few rows by a weight of 8 bits, in integers where that is faster, or in bf16.

    Args:
        input: Rows, (rows, in), contiguous.
        weight: Weight of 8 bits, (out, in).
        scale: Scales of its rows, (out,).
        ones: Ones in bf16, (out,).
        packed: The weight as `Int8Linear.packed` returns it.

    Returns:
        (rows, out), in the dtype of `scale`, at least bf16.
    """
    if torch.compiler.is_compiling() and len(input) == 1:
        # torch's own compiler makes a loop of this, which reads the weight in half of the operator's time and rounds
        # nothing.
        return (weight.to(torch.float32) * input.float()).sum(1).unsqueeze(0) * scale
    if packed is not None:
        return multiply_packed(input, packed, scale.float()).to(scale.dtype)
    if FAST_INTEGERS and len(input) > BLOCK_ROWS:
        return multiply_integers(input, weight, scale)
    # A private operator of torch, which torch's own int8 recipes call. It is fast with bf16 activations alone, and
    # wants its scales in bf16, too. It gets ones: scaling afterwards takes an operation less and is rounded less.
    return torch._weight_int8pack_mm(input.bfloat16(), weight, ones) * scale


def multiply_integers(input: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """
    Multiply rows by a weight of 8 bits that cannot be packed, exactly but for rounding the rows to 15 bits.

    A row becomes two of 8 bits, high ones and low ones, which the processor multiplies faster than one of bf16; and
    bf16 has 8 bits alone.

    Args:
        input: Rows, (rows, in).
        weight, scale: As in `multiply_int8`.

    Returns:
        (rows, out), in the dtype of `scale`.
    """
    rows = len(input)
    row_scale = torch.linalg.vector_norm(input, torch.inf, dim=1, keepdim=True, dtype=torch.float32) / 127
    scaled = input / row_scale.clamp_(min=LEAST_SCALE)
    high = scaled.round()
    low = ((scaled - high) * LOW_STEPS).round_()
    # (2 rows, out); a private operator of torch, the only one for such products.
    sums = torch._int_mm(torch.cat([high, low]).to(torch.int8), weight.t()).float()
    output = torch.add(sums[:rows], sums[rows:], alpha=1 / LOW_STEPS)
    return output.mul_(row_scale).mul_(scale).to(scale.dtype)


class Int8Weight(nn.Module):
    """A weight of 8 bits, `weight` (rows, columns), and its scales, `weight_scale` (rows,)."""

    def hold(self, rows: int, columns: int, dtype: torch.dtype, device: torch.device | str) -> None:
        weight = torch.empty(rows, columns, dtype=torch.int8, device=device)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(rows, dtype=dtype, device=device), requires_grad=False)

    @torch.no_grad()
    def take(self, weight: torch.Tensor) -> None:
        """Round a weight of this shape into this layer."""
        rounded, scale = round_rows(weight)
        self.weight.copy_(rounded)
        self.weight_scale.copy_(scale)


class Int8Linear(Int8Weight):
    """A linear layer, (..., in) -> (..., out), on a weight of 8 bits."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.hold(layer.out_features, layer.in_features, layer.weight.dtype, layer.weight.device)
        self.bias = layer.bias
        self.ones = make_ones(layer.out_features)
        # Of which weight, of which of its versions, and the copy; the weight is held, lest another get its address.
        self.packed_copy: tuple[torch.Tensor, int, torch.Tensor] | None = None

    def fits(self, rows: int) -> bool:
        """Tell whether so many rows are few, and the operator on 8 bits could multiply them."""
        weight = self.weight
        return (
            0 < rows <= FEW_ROWS
            and weight.numel() >= SMALL
            and self.in_features % VECTOR == 0
            and weight.data_ptr() % VECTOR == 0
            and weight.device.type == "cpu"
        )

    def packs(self) -> bool:
        """
        Tell whether a copy of the weight can be kept for products in integers.

        Not in a graph, to which oneDNN's layout means nothing, nor of a weight that was made in inference mode, whose
        changes nobody counts.
        """
        if not FAST_INTEGERS or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        return not self.weight.is_inference() and can_pack()

    def packed(self, rows: int) -> torch.Tensor | None:
        """
        The weight's copy for the product of so many rows in integers, made anew when the weight has changed.

        None where bf16 is faster, and where no copy can be kept. What is written through `weight.data` is not seen.
        """
        weight = self.weight
        if (rows == 1 and weight.numel() < LARGE) or not self.packs():
            return None
        held, version, copy = self.packed_copy or (None, None, None)
        if held is None or held.data_ptr() != weight.data_ptr() or version != weight._version:
            copy = pack(weight.detach())
            self.packed_copy = (weight.detach(), weight._version, copy)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: not the packed copy, which only oneDNN can read."""
        return vars(self) | {"packed_copy": None}

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.device.type != "cpu" or torch.is_grad_enabled():
            return self.multiply_in_float(input)
        rows = input.numel() // self.in_features
        if rows == 0 or self.weight.numel() < SMALL:
            return self.multiply_in_float(input)
        few, packed = self.fits(rows), self.packed(rows)
        if not few and packed is None and not FAST_BF16:
            return self.multiply_in_float(input)
        # (rows, in), contiguous: the operator on 8 bits reads past rows that are not.
        flat = input.reshape(-1, self.in_features).contiguous()
        if packed is not None:
            multiply = multiply_packed if rows <= FEW_ROWS else multiply_packed_many
            output = multiply(flat, packed, self.weight_scale.float())
        elif few:
            output = multiply_int8(flat, self.weight, self.weight_scale, self.ones).to(input.dtype)
        else:
            output = product(flat.to(torch.bfloat16), self.weight.to(torch.bfloat16))
            output = output.to(input.dtype).mul_(self.weight_scale)
        if self.bias is not None:
            output.add_(self.bias.to(output.dtype))
        return output.view(*input.shape[:-1], self.out_features)

    def multiply_in_float(self, input: torch.Tensor) -> torch.Tensor:
        """`forward` on any number of rows, in the dtype of the input."""
        dtype, bias = input.dtype, None if self.bias is None else self.bias.to(input.dtype)
        scale = self.weight_scale.to(dtype)
        if dtype == torch.float16:  # which has no room for products of the 8 bits as they are
            return nn.functional.linear(input, self.weight.to(dtype) * scale.unsqueeze(1), bias)
        # The scales come last, since the outputs are fewer than the weights.
        output = nn.functional.linear(input, self.weight.to(dtype)) * scale
        return output if bias is None else output + bias


def wants_bf16(layer: nn.Module, input: torch.Tensor) -> bool:
    """Tell whether a layer is one of 8 bits that multiplies float32 rows, (..., in), in bf16 where they are many."""
    computes = input.device.type == "cpu" and input.dtype == torch.float32 and not torch.is_grad_enabled()
    return computes and FAST_BF16 and isinstance(layer, Int8Linear) and layer.weight.numel() >= SMALL


class Int8Embedding(Int8Weight):
    """An embedding on a weight of 8 bits, (tokens) -> (tokens, width)."""

    def __init__(self, layer: nn.Embedding):
        super().__init__()
        self.num_embeddings, self.embedding_dim = layer.num_embeddings, layer.embedding_dim
        self.hold(layer.num_embeddings, layer.embedding_dim, layer.weight.dtype, layer.weight.device)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scale = self.weight_scale[ids].unsqueeze(-1)
        return self.weight[ids].to(scale.dtype) * scale


def replace_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Put empty layers of 8 bits in place of the float ones, and return those by name."""
    types = {nn.Linear: Int8Linear, nn.Embedding: Int8Embedding}
    found = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) in types and not name.rpartition(".")[2].startswith(KEPT)
    }
    for name, layer in found.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, types[type(layer)](layer))
    # The scales of a head that is tied to the embeddings are tied, too.
    tied = dict(model._tied_weights_keys or {})
    model._tied_weights_keys = tied | {f"{target}_scale": f"{source}_scale" for target, source in tied.items()}
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=False)
    return found


def round_model(model: PreTrainedModel) -> PreTrainedModel:
    """Round the weights of a loaded model in place, and let it be saved so; one that is rounded stays as it is."""
    if any(isinstance(layer, Int8Weight) for layer in model.modules()):
        return model
    for name, layer in replace_layers(model).items():
        model.get_submodule(name).take(layer.weight)
    model.tie_weights()
    model.hf_quantizer = Int8Quantizer(Int8Config(), pre_quantized=True)
    model.config.quantization_config = model.hf_quantizer.quantization_config
    return model.eval()


class Int8Quantizer(HfQuantizer):
    """What `from_pretrained` and `save_pretrained` ask about this quantisation."""

    requires_calibration = False
    is_trainable = False

    def is_serializable(self) -> bool:
        return True

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        if self.pre_quantized:
            replace_layers(model)
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        if not self.pre_quantized:
            return round_model(model)
        for layer in model.modules():
            if isinstance(layer, Int8Weight):  # in a file the weights may lie anywhere; of their own they are aligned
                layer.weight.data = layer.weight.data.clone()
        model.tie_weights()
        return model


# By assignment and not by transformers' functions, which refuse a name that is known already: a folder's own copy of
# this file is imported beside the package.
AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = Int8Config
AUTO_QUANTIZER_MAPPING[METHOD] = Int8Quantizer

__all__ = ["Int8Config", "round_model"]

"""Weights of 8 bits: close to float32, a quarter of its file, and loaded again by whoever opens the folder."""

import copy

import pytest
import torch
from transformers import AutoModelForMultimodalLM

from modeling_mac import Int8Config, MacForConditionalGeneration, int8_mac, packed_mac
from modeling_mac.convert_cli_mac import main
from modeling_mac.int8_mac import Int8Linear, has_one_of, make_ones, multiply_int8, round_rows
from modeling_mac.packed_mac import can_pack, multiply_packed, multiply_packed_many, pack
from processing_mac import DEFAULT_MODEL


WITH_INTEGERS = pytest.mark.skipif(not int8_mac.FAST_INTEGERS, reason="the processor has no such instructions")


def size(folder) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_a_row_of_zeros_and_the_largest_value_are_exact():
    weight = torch.tensor([[0.0, 0.0], [0.5, -1.0]])
    rounded, scale = round_rows(weight)
    assert rounded[0].tolist() == [0, 0] and rounded[1, 1] <= -126
    assert ((rounded * scale.unsqueeze(1) - weight).abs() <= scale.unsqueeze(1)).all()
    assert torch.equal(scale, scale.bfloat16().float())


@pytest.mark.parametrize("fast_bf16", [False, True])
@pytest.mark.parametrize("fast_integers", [False, pytest.param(True, marks=WITH_INTEGERS)])
@pytest.mark.parametrize("rows", [1, 7, 12, 13, 32, 33, 200])
@torch.no_grad()
def test_few_rows_and_many_give_nearly_the_float_product(rows, fast_bf16, fast_integers, monkeypatch):
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    monkeypatch.setattr(int8_mac, "FAST_BF16", fast_bf16)
    monkeypatch.setattr(int8_mac, "FAST_INTEGERS", fast_integers)
    layer = torch.nn.Linear(64, 48)
    ours = Int8Linear(layer)
    ours.take(layer.weight)
    input = torch.randn(2, rows, 64)[:, : (rows + 1) // 2]
    expected = layer(input)
    assert (ours(input) - expected).norm() < 0.02 * expected.norm()


@WITH_INTEGERS
@torch.no_grad()
def test_integers_are_more_exact_than_bf16(monkeypatch):
    """Also where one number of a row is far larger than the others, and in a row of zeros."""
    rounded, scale = round_rows(torch.randn(48, 64))
    rows = torch.cat([torch.randn(8, 64), torch.zeros(1, 64)])
    rows[3, 5] = 50.0
    exact = rows.double() @ (rounded.double() * scale.double().unsqueeze(1)).T
    errors = []
    for fast in (True, False):
        monkeypatch.setattr(int8_mac, "FAST_INTEGERS", fast)
        output = multiply_int8(rows, rounded, scale, make_ones(48))
        assert output.dtype == torch.float32 and output.is_contiguous() and (output[8] == 0).all()
        errors.append(((output - exact)[:8].norm(dim=1) / exact[:8].norm(dim=1)).max())
    assert errors[0] < 3e-4 < errors[1]


@WITH_INTEGERS
@torch.no_grad()
def test_packed_rows_are_as_exact_alone_as_in_a_batch():
    """Also where one number of a row is far larger than the others, in a row of zeros, and beside one of NaN."""
    rounded, scale = round_rows(torch.randn(48, 64))
    rows = torch.randn(9, 64) * torch.logspace(-30, 30, 9).unsqueeze(1)
    rows[3, 5] *= 50
    rows[4] = 0
    exact = rows.double() @ (rounded.double() * scale.double().unsqueeze(1)).T
    output = multiply_packed(rows, packed := pack(rounded), scale)
    assert output.is_contiguous() and (output[4] == 0).all()
    error = ((output - exact).norm(dim=1) / exact.norm(dim=1))[[0, 1, 2, 3, 5, 6, 7, 8]]
    assert error.max() < 3e-4 and error.median() < 6e-5
    for number, row in enumerate(rows):
        assert torch.equal(multiply_packed(row.unsqueeze(0), packed, scale)[0], output[number])
    rows[0, 0] = torch.nan
    output = multiply_packed(rows, packed, scale)
    assert output[0].isnan().all() and output[1:].isfinite().all()


@WITH_INTEGERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_many_rows_are_rounded_to_bytes_but_for_those_where_one_number_stands_out(dtype, monkeypatch):
    rounded, scale = round_rows(torch.randn(48, 1024))
    rows = torch.randn(6, 1024) * torch.tensor([1e-3, 1, 30, 1, 0, 1]).unsqueeze(1)
    rows[3, 7], rows[5, 0] = 40, torch.nan
    rows = rows.to(dtype)
    output = multiply_packed_many(rows, packed := pack(rounded), scale)
    assert output.dtype == dtype and (output[4] == 0).all() and output[5].isnan().all()
    exact = rows[:4].double() @ (rounded.double() * scale.double().unsqueeze(1)).T
    error = (output[:4] - exact).norm(dim=1) / exact.norm(dim=1)
    assert (error[:3] > 0.004).all() and (error[:3] < 0.02).all()
    assert error[3] < (3e-4 if dtype == torch.float32 else 4e-3)
    monkeypatch.setattr(packed_mac, "AT_ONCE", 4)
    assert torch.equal(multiply_packed_many(rows, packed, scale)[:5], output[:5])  # a piece at a time
    for number, row in enumerate(rows[:5]):  # whatever is beside it
        assert torch.equal(multiply_packed_many(row.unsqueeze(0), packed, scale)[0], output[number])


@pytest.fixture
def packing_layer(monkeypatch) -> Int8Linear:
    """A layer that packs its weight where it can, though it is small."""
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    layer = Int8Linear(linear := torch.nn.Linear(64, 48))
    layer.take(linear.weight)
    return layer


@WITH_INTEGERS
@torch.no_grad()
def test_one_row_is_packed_for_a_large_weight_alone(packing_layer, monkeypatch):
    assert packing_layer.packed(1) is None and packing_layer.packed(2) is not None
    monkeypatch.setattr(int8_mac, "LARGE", packing_layer.weight.numel())
    assert packing_layer.packed(1) is packing_layer.packed(2)


@WITH_INTEGERS
@torch.no_grad()
def test_many_rows_are_rounded_to_bytes_and_few_are_not(packing_layer):
    input = torch.randn(int8_mac.FEW_ROWS + 1, 64)
    exact = packing_layer.multiply_in_float(input)
    few, many = packing_layer(input[:-1]) - exact[:-1], packing_layer(input) - exact
    assert few.norm() < 3e-4 * exact.norm() < 3e-3 * exact.norm() < many.norm() < 0.02 * exact.norm()


@WITH_INTEGERS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@torch.no_grad()
def test_rows_of_any_width_and_dtype_are_multiplied(monkeypatch, dtype):
    """Few are exact also where the operator on 8 bits could not read them."""
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    layer = Int8Linear(linear := torch.nn.Linear(50, 48))
    layer.take(linear.weight)
    rows = torch.randn(int8_mac.FEW_ROWS + 1, 50).to(dtype)
    exact = layer.multiply_in_float(rows.float())
    for number, least, most in ((int8_mac.FEW_ROWS, 0, 3e-3), (len(rows), 3e-3, 0.02)):
        output, expected = layer(rows[:number]), exact[:number]
        assert output.dtype == dtype and least < (output.float() - expected).norm() / expected.norm() < most


@WITH_INTEGERS
@torch.no_grad()
def test_a_packed_copy_follows_its_weight(packing_layer):
    input = torch.randn(4, 64)
    before = packing_layer(input)
    assert packing_layer.packed_copy is not None
    packing_layer.weight.neg_()
    torch.testing.assert_close(packing_layer(input), 2 * packing_layer.bias - before)
    packing_layer.weight.data = -packing_layer.weight.data
    torch.testing.assert_close(packing_layer(input), before)


@WITH_INTEGERS
@torch.no_grad()
def test_a_weight_at_the_address_of_another_is_packed_anew(packing_layer):
    """The allocator gives the place of a freed weight to the next, whose versions begin at 0 as well."""
    rows = torch.randn(4, packing_layer.in_features)
    with torch.no_grad():
        for _ in range(10):
            packing_layer(rows)
            shape = packing_layer.weight.shape
            packing_layer.weight = None
            packing_layer.weight = torch.nn.Parameter(
                torch.randint(-127, 128, shape, dtype=torch.int8), requires_grad=False
            )
            expected = torch.nn.functional.linear(
                rows, packing_layer.weight.float() * packing_layer.weight_scale[:, None]
            )
            output = packing_layer(rows) - (0 if packing_layer.bias is None else packing_layer.bias)
            torch.testing.assert_close(output, expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item())


def test_a_packed_copy_is_neither_copied_nor_saved(packing_layer, tmp_path):
    input = torch.randn(4, 64)
    expected = packing_layer(input)
    assert set(packing_layer.state_dict()) == {"weight", "weight_scale", "bias"}
    torch.save(packing_layer, tmp_path / "layer.pt")
    for again in (copy.deepcopy(packing_layer), torch.load(tmp_path / "layer.pt", weights_only=False)):
        assert again.packed_copy is None and torch.equal(again(input), expected)


@WITH_INTEGERS
def test_a_weight_whose_changes_nobody_counts_is_not_packed(packing_layer):
    with torch.inference_mode():
        packing_layer.weight = torch.nn.Parameter(packing_layer.weight.clone(), requires_grad=False)
        input = torch.randn(4, 64)
        expected = packing_layer.multiply_in_float(input)
        assert packing_layer.packed(4) is None
        assert (packing_layer(input) - expected).norm() < 0.02 * expected.norm()


@WITH_INTEGERS
@pytest.mark.parametrize("way", ["traced", "compiled"])
@torch.no_grad()
def test_a_graph_has_no_packed_copy(way, packing_layer):
    input = torch.randn(8, 64)
    if way == "traced":
        graph = torch.jit.trace(packing_layer, input, check_trace=False)
    else:
        graph = torch.compile(packing_layer, backend="eager")
    output = graph(input)
    assert packing_layer.packed_copy is None
    assert (output - packing_layer.multiply_in_float(input)).norm() < 0.02 * output.norm()


@torch.no_grad()
def test_a_graph_rounds_nothing_of_one_row(packing_layer):
    input = torch.randn(1, 64)
    output = torch.compile(packing_layer, backend="eager")(input)
    torch.testing.assert_close(output, packing_layer.multiply_in_float(input), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("missing", ["instructions", "operators", "the right result"])
@torch.no_grad()
def test_what_cannot_pack_goes_on_without(missing, packing_layer, monkeypatch):
    def operators(*arguments):
        raise AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qlinear_pointwise'")

    if missing == "instructions":
        monkeypatch.setattr(int8_mac, "FAST_INTEGERS", False)
    elif missing == "operators":
        monkeypatch.setattr(packed_mac, "pack", operators)
    else:
        monkeypatch.setattr(packed_mac, "MIDDLE", 127)
    can_pack.cache_clear()
    input = torch.randn(4, 64)
    expected = packing_layer.multiply_in_float(input)
    try:
        assert packing_layer.packed(4) is None
        assert (packing_layer(input) - expected).norm() < 0.02 * expected.norm()
    finally:
        can_pack.cache_clear()


@torch.no_grad()
def test_a_small_layer_is_multiplied_in_float(monkeypatch):
    """In bf16 the outputs would be multiples of its steps."""
    layer = torch.nn.Linear(64, 48)
    ours = Int8Linear(layer)
    ours.take(layer.weight)
    input = torch.randn(1, 64)
    exact = input @ (ours.weight.float() * ours.weight_scale.unsqueeze(1)).T + layer.bias
    torch.testing.assert_close(ours(input), exact, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    assert (ours(input) - exact).abs().max() > 1e-5


@torch.no_grad()
def test_many_rows_that_cannot_be_packed_are_bf16_only_where_that_is_fast(monkeypatch):
    monkeypatch.setattr(int8_mac, "SMALL", 0)
    monkeypatch.setattr(int8_mac, "FAST_INTEGERS", False)
    ours = Int8Linear(layer := torch.nn.Linear(64, 48))
    ours.take(layer.weight)
    input = torch.randn(int8_mac.FEW_ROWS + 1, 64)
    exact = ours.multiply_in_float(input)
    for fast in (False, True):
        monkeypatch.setattr(int8_mac, "FAST_BF16", fast)
        output = ours(input)
        assert output.dtype == torch.float32
        assert ((output - exact).abs().max() > 1e-4) == fast


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@torch.no_grad()
def test_large_inputs_stay_finite(dtype):
    """The products of the 8 bits themselves would be too large for float16."""
    layer = torch.nn.Linear(4096, 8).to(dtype)
    ours = Int8Linear(layer)
    ours.take(layer.weight)
    input = layer.weight[:1].sign().expand(40, -1) * 16
    expected = layer.float()(input.float())
    assert (ours(input).float() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_saved_and_loaded(make_mac, make_inputs, tmp_path, tied):
    model = make_mac(tie_word_embeddings=tied)
    inputs = make_inputs(1, 2)
    expected = model(**inputs).logits
    model.save_pretrained(tmp_path / "float")
    loaded = MacForConditionalGeneration.from_pretrained(tmp_path / "float", quantization_config=Int8Config())
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    actual = loaded(**inputs).logits
    assert (actual - expected).norm() < 0.2 * expected.norm()
    loaded.save_pretrained(tmp_path / "int8")
    again = MacForConditionalGeneration.from_pretrained(tmp_path / "int8")
    assert torch.equal(again(**inputs).logits, actual)
    assert again.lm_head.weight.dtype == torch.int8 and again.dtype == torch.float32
    assert torch.equal(again.generate(**inputs, num_beams=2), loaded.generate(**inputs, num_beams=2))


def test_the_shipped_checkpoint_is_a_third_of_its_size(tmp_path):
    model = AutoModelForMultimodalLM.from_pretrained(DEFAULT_MODEL, quantization_config=Int8Config())
    model.save_pretrained(tmp_path / "int8")
    model = AutoModelForMultimodalLM.from_pretrained(DEFAULT_MODEL, dtype=torch.float32)
    model.save_pretrained(tmp_path / "float")
    assert size(tmp_path / "int8") < 0.3 * size(tmp_path / "float")
    AutoModelForMultimodalLM.from_pretrained(tmp_path / "int8")


def test_mac_convert_rounds(eat_folder, mamba2_folder, tmp_path):
    towers = ["--audio", str(eat_folder), "--language-model", str(mamba2_folder), "--audio-token-id", "51"]
    main([*towers, "--output", str(tmp_path / "int8"), "--int8"])
    model = MacForConditionalGeneration.from_pretrained(tmp_path / "int8")
    assert model.lm_head.weight.dtype == torch.int8 and model.lm_head.weight is model.get_input_embeddings().weight


def test_a_torch_that_does_not_know_the_processor_is_taken_for_slow_in_bf16(monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert has_one_of("avx512_bf16", "amx_tile")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not has_one_of("avx512_bf16", "amx_tile")

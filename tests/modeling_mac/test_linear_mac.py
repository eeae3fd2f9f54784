"""The product of few rows and of many against that of the `nn.Linear` that it is given."""

import pytest
import torch
from torch import nn

from modeling_mac import product_mac
from modeling_mac.linear_mac import project
from modeling_mac.product_mac import FEW_ROWS, FEWEST_ROWS, product


WITH_MKL = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this build of torch lacks MKL")


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(24, 40)


@pytest.fixture
def products(monkeypatch) -> list[int]:
    """Rows of every usual product."""
    rows: list[int] = []
    usual = nn.functional.linear

    def linear(input, weight, bias=None):
        rows.append(input.shape[:-1].numel())
        return usual(input, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", linear)
    return rows


@pytest.mark.parametrize("mkl", [pytest.param(True, marks=WITH_MKL), False])
@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize(
    "shape", [(1, 1, 24), (24,), (4, 24), (2, 8, 24), (FEW_ROWS, 1, 24), (FEW_ROWS + 1, 24), (0, 24), (3, 0, 24)]
)
@torch.no_grad()
def test_few_rows_and_many_give_the_same(layer, monkeypatch, mkl, onednn, gelu, bias, shape):
    monkeypatch.setattr(product_mac, "MKL", mkl)
    monkeypatch.setattr(product_mac, "ONEDNN", onednn)
    monkeypatch.setattr(product_mac, "LARGE", 0)
    if not bias:
        layer.bias = None
    inputs = torch.randn(shape)
    output, expected = project(layer, inputs, gelu), nn.functional.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(output, nn.functional.gelu(expected) if gelu else expected)
    assert output.is_contiguous(), "a search over strided logits takes longer than the product"


@WITH_MKL
@pytest.mark.parametrize("rows", [1, FEWEST_ROWS])
@pytest.mark.parametrize("outputs", [1, 3, 40, 128])
@torch.no_grad()
def test_any_number_of_outputs_may_be_cut_into_parts(outputs, rows, monkeypatch):
    monkeypatch.setattr(product_mac, "LARGE", 0)
    inputs, weight = torch.randn(rows, 24), torch.randn(outputs, 24)
    for strided in (weight, weight.t().contiguous().t()):
        output = product(inputs, strided)
        torch.testing.assert_close(output, inputs @ weight.t())
        assert output.is_contiguous()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch lacks oneDNN")
@torch.no_grad()
def test_autocast_does_not_tell_few_rows_from_many(monkeypatch):
    monkeypatch.setattr(product_mac, "LARGE", 0)
    inputs, weight = torch.randn(FEWEST_ROWS + 1, 24), torch.randn(40, 24)
    with torch.autocast("cpu", torch.bfloat16):
        few, many = product(inputs[:1], weight), product(inputs, weight)
    torch.testing.assert_close(few, many[:1])  # in dtype, too


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch lacks oneDNN")
@torch.no_grad()
def test_inputs_may_have_gaps(layer, monkeypatch):
    """oneDNN multiplies strided rows by its reference code: the last token of 8 prompts took seconds."""
    product, contiguous = torch.ops.mkldnn._linear_pointwise, []

    def spy(first, second, *options):
        contiguous.append(first.is_contiguous() and second.is_contiguous())
        return product(first, second, *options)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", spy)
    gaps = (torch.randn(3, 2, 50)[..., 5:29], torch.randn(8, 5, 24)[:, -1:], torch.randn(FEW_ROWS, 2, 50)[..., 5:29])
    for inputs in gaps:
        torch.testing.assert_close(project(layer, inputs), nn.functional.linear(inputs, layer.weight, layer.bias))
    assert contiguous == [True, True, True]


def test_the_usual_product_serves_all_else(layer, products):
    with torch.no_grad():
        for rows in (2, FEW_ROWS + 1):
            project(layer, torch.randn(rows, 24))
        assert products == []
    inputs = torch.randn(3, 24)
    project(layer, inputs).sum().backward()
    assert products == [3]
    torch.testing.assert_close(layer.weight.grad, inputs.sum(0).expand_as(layer.weight))
    torch.testing.assert_close(layer.bias.grad, torch.full_like(layer.bias, 3.0))
    with torch.no_grad():
        assert project(layer.bfloat16(), torch.randn(4, 24).bfloat16()).dtype == torch.bfloat16
    assert products[1:] == [4]


@torch.no_grad()
def test_quantised_weights_keep_their_own_product(layer, products):
    class Quantised(torch.Tensor):
        pass

    layer.weight = nn.Parameter(layer.weight.data.as_subclass(Quantised), requires_grad=False)
    assert isinstance(layer.weight, Quantised)
    project(layer, torch.randn(5, 24))
    assert products == [5]


@torch.no_grad()
def test_compiles_into_one_graph(layer):
    inputs = torch.randn(2, 24)
    compiled = torch.compile(project, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(layer, inputs), project(layer, inputs))


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@torch.no_grad()
def test_a_hooked_layer_is_called_as_a_module(layer, register):
    calls = []
    getattr(layer, register)(lambda *arguments: calls.append(1))
    project(layer, torch.randn(2, 24))
    assert calls == [1]


@torch.no_grad()
def test_a_replaced_forward_is_used(layer):
    """So accelerate moves weights that lie on a disk or another device."""
    layer.forward = lambda input: input[..., :1]
    assert project(layer, torch.randn(2, 24)).shape == (2, 1)

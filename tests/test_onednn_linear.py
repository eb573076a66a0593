import copy

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from fusebench.methods import onednn_linear
from fusebench.methods.grammar import parse
from fusebench.methods.onednn_linear import OneDNNLinear, by_torch, use_onednn
from fusebench.methods.states import StateShape
from tests.tiny_models import TEXTS, backbone_of, folder_of

pytestmark = pytest.mark.skipif(not onednn_linear.available(), reason="torch carries no oneDNN for this processor")


def pair(inputs=13, outputs=11, bias=True):
    stock = nn.Linear(inputs, outputs, bias=bias)
    return stock, use_onednn(copy.deepcopy(stock))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 13), (2, 5, 13), (13,), (0, 13)])
def test_products_are_those_of_torch(shape, bias):
    stock, ours = pair(bias=bias)
    inputs = torch.randn(shape)
    with torch.inference_mode():
        assert type(ours) is OneDNNLinear
        torch.testing.assert_close(ours(inputs), stock(inputs), rtol=0, atol=2e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 13), (2, 5, 13)])
def test_gradients_are_those_of_torch(shape, bias):
    stock, ours = pair(bias=bias)
    one, other = (torch.randn(shape).requires_grad_() for _ in range(2))
    other.data.copy_(one.data)
    upstream = torch.randn(*shape[:-1], 11)
    stock(one).backward(upstream)
    ours(other).backward(upstream)
    torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=1e-5)
    for mine, theirs in zip(ours.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-5)


def test_frozen_weights_get_no_gradient_and_pass_it_on():
    _, ours = pair()
    ours.requires_grad_(False)
    inputs = torch.randn(4, 13, requires_grad=True)
    ours(inputs).sum().backward()
    assert ours.weight.grad is None
    torch.testing.assert_close(inputs.grad, ours.weight.sum(dim=0).expand(4, 13), rtol=0, atol=1e-5)


def test_rows_that_do_not_lie_one_behind_the_other_are_read_rightly():
    stock, ours = pair()
    for inputs in (torch.randn(5, 3, 13).transpose(0, 1), torch.randn(6, 13, 2)[..., 0]):
        torch.testing.assert_close(ours(inputs), stock(inputs), rtol=0, atol=2e-6)


def test_products_are_of_dense_matrices_forward_and_backward(monkeypatch):
    """One layer's states out of an array of all layers, and a gradient that was broadcast, lie apart in memory."""
    operands = []
    product = onednn_linear._product

    def seen(inputs, weight, *rest):
        operands.extend([inputs, weight])
        return product(inputs, weight, *rest)

    monkeypatch.setattr(onednn_linear, "_product", seen)
    _, ours = pair()
    inputs = torch.randn(5, 3, 4, 13, requires_grad=True)
    ours(inputs[:, :, 1]).sum().backward()
    assert len(operands) == 6
    assert all(one.is_contiguous() or one.mT.is_contiguous() for one in operands)


def test_other_types_go_the_way_of_torch_to_the_last_bit():
    stock, ours = pair()
    for dtype in (torch.float64, torch.bfloat16):
        inputs = torch.randn(4, 13).to(dtype)
        assert torch.equal(ours.to(dtype)(inputs), stock.to(dtype)(inputs))


def test_autocast_still_lowers_the_precision():
    stock, ours = pair()
    inputs = torch.randn(4, 13)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(inputs).dtype == stock(inputs).dtype == torch.bfloat16


def test_names_weights_and_copies_of_a_module_stay():
    stock = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    ours = use_onednn(use_onednn(copy.deepcopy(stock)))
    assert list(ours.state_dict()) == list(stock.state_dict())
    other = copy.deepcopy(ours)
    other[0].weight.data.zero_()
    assert ours[0].weight.abs().sum() > 0


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "distilbert", "modernbert", "llama"])
def test_a_backbone_has_the_states_of_stock_transformers(kind):
    backbone = backbone_of(kind)
    stock = transformers.AutoModel.from_pretrained(folder_of(kind)).eval()
    assert any(isinstance(module, OneDNNLinear) for module in backbone.model.modules())
    assert not any(isinstance(module, OneDNNLinear) for module in stock.modules())
    tokens, mask = backbone.pad(backbone.tokenize(TEXTS).ids)
    with torch.inference_mode():
        theirs = stock(input_ids=tokens, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    ours = backbone.states(backbone.tokenize(TEXTS).ids)
    assert np.max([abs(a - b)[mask].max() for a, b in zip(ours.hidden, theirs, strict=True)]) < 1e-5


def test_gelu_is_applied_once_frozen_or_trained():
    backbone = backbone_of("bert")
    fused = [module for module in backbone.model.modules() if hasattr(module, "unfused")]
    assert len(fused) == backbone.shape.blocks
    inputs = torch.randn(3, 5, backbone.shape.dim)
    expected = nn.functional.gelu(nn.functional.linear(inputs, fused[0].dense.weight, fused[0].dense.bias))
    with torch.inference_mode():
        torch.testing.assert_close(fused[0](inputs), expected, rtol=0, atol=2e-6)
    learning = backbone.trainable_copy()
    layer = next(module for module in learning.model.modules() if hasattr(module, "unfused"))
    out = layer(inputs)
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)
    out.sum().backward()
    assert layer.dense.weight.grad.abs().sum() > 0
    assert fused[0].dense.weight.grad is None


def test_heads_compute_by_it_too():
    fusion = parse("layer-attention(untrained)").build_fusion(StateShape(blocks=3, dim=32))
    assert all(type(layer) is OneDNNLinear for layer in fusion.modules() if isinstance(layer, nn.Linear))


def test_a_module_computes_as_torch_does_for_as_long_as_asked():
    backbone = backbone_of("bert")
    before = [type(module) for module in backbone.model.modules()]
    with by_torch(backbone.model):
        inside = list(backbone.model.modules())
        assert not any(isinstance(module, OneDNNLinear) or hasattr(module, "unfused") for module in inside)
    assert [type(module) for module in backbone.model.modules()] == before

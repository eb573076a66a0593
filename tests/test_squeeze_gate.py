"""The squeeze gate equals its sum over layers, feature by feature."""

import math

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.layer_mix import LayerMean
from fusebench.methods.squeeze_gate import SqueezeGate
from fusebench.methods.states import StateShape
from fusebench.methods.token_pooling import Mean
from tests.tiny_states import SHAPE, assert_equal, count, make, stirred


def loop(fusion, layers):
    """One text, `[layers, dim]`; V has one row for each layer and feature, layer after layer."""
    dim = layers.shape[1]
    narrow = (fusion.squeeze.weight @ sum(layers)).clamp(min=0)
    logits = (fusion.excite.weight @ narrow + fusion.excite.bias).tolist()
    vector = []
    for feature in range(dim):
        powers = [math.exp(logits[place * dim + feature]) for place in range(len(layers))]
        gates = [power / sum(powers) for power in powers]
        vector.append(sum(gate * float(layer[feature]) for gate, layer in zip(gates, layers, strict=True)))
    return torch.tensor(vector, dtype=torch.float64)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", [{}, {"first": 0}, {"first": 3, "width": 2}], ids=str)
def test_it_equals_a_loop_over_features_and_layers(params, side):
    states, texts = make(side)
    fusion = stirred(SqueezeGate(SHAPE, **params))
    expected = [loop(fusion, text[params.get("first", 1) :].mean(dim=1)) for text in texts]
    assert_equal(fusion(states), torch.stack(expected))


def test_gates_commute_with_the_mean_over_tokens():
    states, texts = make()
    fusion = stirred(SqueezeGate(SHAPE))
    gates = fusion.gates(states)
    expected = [
        (gate.unsqueeze(1) * text[1:]).sum(dim=0).mean(dim=0) for gate, text in zip(gates, texts, strict=True)
    ]
    assert_equal(fusion(states), torch.stack(expected))


def test_gates_sum_to_1_over_layers_in_every_feature():
    states, texts = make()
    gates = stirred(SqueezeGate(SHAPE)).gates(states)
    assert gates.shape == (len(texts), SHAPE.blocks, SHAPE.dim)
    assert_equal(gates.sum(dim=1), torch.ones(len(texts), SHAPE.dim, dtype=torch.float64))


def test_it_starts_near_the_layer_mean_and_is_it_without_evidence():
    states, _ = make()
    fusion = SqueezeGate(SHAPE).double()
    mean = LayerMean(SHAPE, first=1)(states)
    assert_equal(fusion(states), mean, 0.05)
    fusion.squeeze.weight.data.zero_()
    assert_equal(fusion(states), mean)


@pytest.mark.parametrize("layer", range(4))
def test_a_bias_on_one_layer_is_that_layer(layer):
    states, _ = make()
    fusion = SqueezeGate(SHAPE).double()
    fusion.excite.bias.data.view(SHAPE.blocks, SHAPE.dim)[layer] = 60
    assert_equal(fusion(states), Mean(SHAPE, layer=1 + layer)(states))


def test_weights_are_few_at_768_dimensions():
    with torch.device("meta"):
        fusion = SqueezeGate(StateShape(12, 768))
    assert count(fusion) == 768 * 32 + 12 * 768 * 33


def test_no_width_is_refused():
    with pytest.raises(InputError, match="width"):
        SqueezeGate(SHAPE, width=0)

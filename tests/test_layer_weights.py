"""A fusion's layer weights are read from its answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fusebench.methods  # noqa: F401  registers the parts
from fusebench.methods.grammar import parse
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import cards
from fusebench.methods.states import Needs, StateShape
from fusebench.study.layer_weights import layer_weights

SHAPE = StateShape(blocks=5, dim=16)
THIRD, FIFTH, SIXTH = 1 / 3, 1 / 5, 1 / 6


def weights_of(sentence):
    return layer_weights(parse(sentence).build_fusion(SHAPE), SHAPE)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("mean", [0, 0, 0, 0, 0, 1]),
        ("cls(layer=2)", [0, 0, 1, 0, 0, 0]),
        ("first-last", [0, 0.5, 0, 0, 0, 0.5]),
        ("first-last(first=0)", [0.5, 0, 0, 0, 0, 0.5]),
        ("last-k-mean(k=3)", [0, 0, 0, THIRD, THIRD, THIRD]),
        ("last-k-sum(k=2)", [0, 0, 0, 0, 1, 1]),
        ("layer-mean(first=1)", [0, FIFTH, FIFTH, FIFTH, FIFTH, FIFTH]),
        ("scalar-mix(untrained)", [SIXTH] * 6),
        ("weighted-layers(untrained,first=3)", [0, 0, 0, THIRD, THIRD, THIRD]),
    ],
)
def test_weights_are_those_of_the_formula(sentence, expected):
    np.testing.assert_allclose(weights_of(sentence), expected, rtol=0, atol=1e-7)


def test_learned_weights_scale_and_sign_are_found():
    fusion = parse("scalar-mix(untrained)").build_fusion(SHAPE)
    with torch.no_grad():
        fusion.weights.copy_(torch.arange(6.0))
        fusion.gamma.fill_(-2.5)
    softmax = np.exp(np.arange(6)) / np.exp(np.arange(6)).sum()
    np.testing.assert_allclose(layer_weights(fusion, SHAPE), -2.5 * softmax, rtol=1e-6)


def test_no_other_fusion_is_taken_for_a_weighted_sum():
    found = {card.name for card in cards("fusion") if layer_weights(card.part(SHAPE).eval(), SHAPE) is not None}
    sums = {"cls", "mean", "first-last", "last-k-mean", "last-k-sum", "layer-mean", "scalar-mix", "weighted-layers"}
    assert found == sums


class _Planted(Fusion):
    """Almost a weighted sum: `spoil` makes it none."""

    needs = Needs.MEANS

    def __init__(self, spoil):
        super().__init__()
        self.layers, self.out_dim, self.spoil = (1, 4), SHAPE.dim, spoil

    def forward(self, states):
        return self.spoil(0.25 * states.mean(1) - 0.75 * states.mean(4), states)


@pytest.mark.parametrize(
    ("spoil", "is_sum"),
    [
        (lambda total, states: total, True),
        (lambda total, states: total + 0.01, False),
        (lambda total, states: total.relu(), False),
        (lambda total, states: total.flip(1), False),
        (lambda total, states: total * torch.linspace(0.9, 1.1, SHAPE.dim), False),
        (lambda total, states: total / total.norm(dim=1, keepdim=True), False),
        (lambda total, states: total + 0.01 * states.mean(1) * states.mean(4), False),
    ],
    ids=["as-is", "shifted", "clipped", "turned", "by-feature", "normed", "product"],
)
def test_a_sum_that_is_spoilt_is_none(spoil, is_sum):
    found = layer_weights(_Planted(spoil), SHAPE)
    assert (found is not None) == is_sum
    if is_sum:
        np.testing.assert_allclose(found, [0, 0.25, 0, 0, -0.75, 0], rtol=0, atol=1e-7)

"""Scalar mixes equal the written sums, and sentence-transformers' own weighted layers."""

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.grammar import parse
from fusebench.methods.layer_mix import LayerMean
from fusebench.methods.scalar_mix import ScalarMix, WeightedLayers
from fusebench.methods.states import LayerStates, Needs, StateShape
from fusebench.methods.token_pooling import Mean
from tests.tiny_states import SHAPE, assert_equal, make, stirred


def standardized(layer):
    """One layer of one text, `[tokens, dim]`, all numbers together."""
    numbers = [float(x) for x in layer.flatten()]
    mu = sum(numbers) / len(numbers)
    variance = sum((x - mu) ** 2 for x in numbers) / len(numbers)
    return (layer - mu) / (variance + 1e-12) ** 0.5


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("layer_norm", [None, "text"])
@pytest.mark.parametrize("first", [0, 2])
def test_it_equals_the_sum_over_layers_of_tokens(first, layer_norm, side):
    states, texts = make(side)
    fusion = stirred(ScalarMix(SHAPE, first=first, layer_norm=layer_norm))
    weights = fusion.weights.exp() / fusion.weights.exp().sum()
    prepare = standardized if layer_norm else (lambda layer: layer)
    mixed = [
        sum(w * prepare(layer) for w, layer in zip(weights, text[first:], strict=True)).mean(dim=0) for text in texts
    ]
    assert_equal(fusion(states), fusion.gamma * torch.stack(mixed))


def test_the_start_is_the_layer_mean():
    states, _ = make()
    assert_equal(ScalarMix(SHAPE).double()(states), LayerMean(SHAPE)(states))
    assert_equal(WeightedLayers(SHAPE).double()(states), LayerMean(SHAPE, first=1)(states))


@pytest.mark.parametrize("layer", range(5))
def test_all_weight_on_one_layer_is_that_layer(layer):
    states, _ = make()
    mix, weighted = ScalarMix(SHAPE).double(), WeightedLayers(SHAPE, first=0).double()
    mix.weights.data[layer] = 60
    weighted.weights.data = 3 * torch.eye(5, dtype=torch.float64)[layer]
    for fusion in (mix, weighted):
        assert_equal(fusion(states), Mean(SHAPE, layer=layer)(states))


def test_gamma_scales_the_vector():
    states, _ = make()
    fusion = ScalarMix(SHAPE).double()
    before = fusion(states)
    fusion.gamma.data *= -2.5
    assert_equal(fusion(states), -2.5 * before)


def test_a_shift_or_scale_of_a_layer_is_not_seen_under_layer_norm():
    states, _ = make()
    fusion = stirred(ScalarMix(SHAPE, layer_norm="text"))
    louder = LayerStates(tuple((k + 2) * h + k for k, h in enumerate(states.hidden)), states.mask)
    assert_equal(fusion(louder), fusion(states), 1e-8)


def test_only_layer_norm_reads_tokens():
    assert ScalarMix(SHAPE).needs == Needs.MEANS
    assert ScalarMix(SHAPE, layer_norm="text").needs == Needs.TOKENS
    assert ScalarMix.needs == Needs.MEANS


@pytest.mark.parametrize("side", ["left", "right"])
def test_weighted_layers_divide_by_the_sum_of_weights_of_either_sign(side):
    states, texts = make(side)
    fusion = WeightedLayers(SHAPE, first=2).double()
    fusion.weights.data = torch.tensor([1, 1, -1.9], dtype=torch.float64)
    expected = [(10 * text[2] + 10 * text[3] - 19 * text[4]).mean(dim=0) for text in texts]
    assert_equal(fusion(states), torch.stack(expected), 1e-9)


def test_weighted_layers_equal_those_of_sentence_transformers():
    models = pytest.importorskip("sentence_transformers.models")
    states, _ = make()
    fusion = stirred(WeightedLayers(SHAPE, first=2), 0.2)
    reference = models.WeightedLayerPooling(
        SHAPE.dim, num_hidden_layers=SHAPE.blocks, layer_start=2, layer_weights=fusion.weights
    )
    pooling = models.Pooling(SHAPE.dim, pooling_mode="mean")
    features = reference({"all_layer_embeddings": states.hidden, "attention_mask": states.mask.long()})
    features["token_embeddings"] = features["token_embeddings"].masked_fill(~states.mask.unsqueeze(-1), 0)
    assert_equal(fusion(states), pooling(features)["sentence_embedding"], 1e-6)


@pytest.mark.parametrize("total", [0.0, 1e-9])
def test_weights_that_sum_to_0_are_refused(total):
    states, _ = make()
    fusion = WeightedLayers(SHAPE, first=3).double()
    fusion.weights.data = torch.tensor([1, total - 1], dtype=torch.float64)
    with pytest.raises(InputError, match="sum to 0"):
        fusion(states)


@pytest.mark.parametrize(("blocks", "first"), [(12, 4), (6, 2), (24, 8), (2, 0)])
def test_the_first_weighted_layer_scales_with_depth(blocks, first):
    assert WeightedLayers(StateShape(blocks, 4)).layers == tuple(range(first, blocks + 1))


def test_there_is_one_weight_a_layer():
    assert [w.numel() for w in ScalarMix(StateShape(12, 768)).parameters()] == [13, 1]
    assert [w.numel() for w in WeightedLayers(StateShape(12, 768)).parameters()] == [9]


@pytest.mark.parametrize(
    ("sentence", "simplest"),
    [
        ("weighted-layers(first=1,untrained)", "weighted-layers(untrained)"),
        ("weighted-layers(first=-5,untrained)", "weighted-layers(first=0,untrained)"),
        ("scalar-mix(first=-5,untrained)", "scalar-mix(untrained)"),
        ("scalar-mix(layer_norm=none,untrained)", "scalar-mix(untrained)"),
    ],
)
def test_equal_spellings_are_one_method(sentence, simplest):
    assert [method.name for method in parse(sentence).on(SHAPE)] == [simplest]

"""Poolings of one layer equal plain loops over the tokens."""

import math

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.registry import card
from fusebench.methods.states import LayerStates, StateShape
from fusebench.methods.token_pooling import Cls, LastToken, Max, Mean, MeanSqrtLen, WeightedMean

SHAPE = StateShape(blocks=3, dim=5)
LENGTHS = (4, 1, 6, 2)


def make(side="right", lengths=LENGTHS, width=7):
    """Random states with ragged rows, the padding filled with large values, and each row's real part."""
    generator = torch.Generator().manual_seed(1)
    hidden = 100 * torch.randn(SHAPE.states, len(lengths), width, SHAPE.dim, generator=generator, dtype=torch.float64)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    texts = []
    for row, length in enumerate(lengths):
        real = slice(0, length) if side == "right" else slice(width - length, width)
        hidden[:, row, real] = hidden[:, row, real] / 100 - 2
        mask[row, real] = True
        texts.append(hidden[:, row, real])
    return LayerStates(hidden.unbind(), mask), texts


def by_loop(name, tokens):
    """The formula, token by token."""
    n = len(tokens)
    if name == "cls":
        return tokens[0]
    if name == "last-token":
        return tokens[n - 1]
    if name == "max":
        return torch.stack([max(token[d] for token in tokens) for d in range(SHAPE.dim)])
    total = torch.zeros(SHAPE.dim, dtype=torch.float64)
    for t, token in enumerate(tokens, start=1):
        total += t * token if name == "weighted-mean" else token
    return total / {"mean": n, "mean-sqrt-len": math.sqrt(n), "weighted-mean": n * (n + 1) / 2}[name]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("layer", [0, 2, -1, -4])
@pytest.mark.parametrize("name", ["cls", "mean", "max", "mean-sqrt-len", "weighted-mean", "last-token"])
def test_each_pooling_equals_its_loop(name, layer, side):
    states, texts = make(side)
    found = card(name).part(SHAPE, layer=layer)(states)
    for vector, text in zip(found, texts, strict=True):
        torch.testing.assert_close(vector, by_loop(name, text[layer]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [Cls, Mean, Max, WeightedMean, LastToken, MeanSqrtLen])
def test_one_token_is_its_own_pooling(kind):
    states, texts = make(lengths=(1,))
    torch.testing.assert_close(kind(SHAPE)(states)[0], texts[0][-1, 0])


@pytest.mark.parametrize("kind", [Cls, Mean, Max, WeightedMean, LastToken])
def test_equal_tokens_pool_to_that_token(kind):
    token = torch.arange(5.0)
    states = LayerStates((token.expand(2, 3, 5),) * 4, torch.tensor([[1, 1, 1], [1, 1, 0]]).bool())
    torch.testing.assert_close(kind(SHAPE)(states), token.expand(2, 5))


def test_mean_sqrt_len_points_where_the_mean_points_but_its_length_depends_on_the_text():
    states, _ = make()
    mean, scaled = Mean(SHAPE)(states), MeanSqrtLen(SHAPE)(states)
    torch.testing.assert_close(torch.cosine_similarity(mean, scaled), torch.ones(4, dtype=torch.float64))
    ratio = (scaled.norm(dim=1) / mean.norm(dim=1)).tolist()
    assert ratio == pytest.approx([math.sqrt(n) for n in LENGTHS])


def test_a_layer_counted_from_the_end_is_the_same_layer():
    assert Mean(SHAPE, layer=-1).layers == Mean(SHAPE, layer=3).layers == (3,)
    assert Mean(SHAPE, layer=-4).layers == Mean(SHAPE, layer=0).layers == (0,)


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_does_not_exist_is_refused(layer):
    with pytest.raises(InputError, match=rf"layer {layer} does not exist: .* 0 \(embedding output\) to 3"):
        Mean(SHAPE, layer=layer)

"""Mixtures of layers equal plain loops over layers first, then tokens."""

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.layer_mix import FirstLast, LastKConcat, LastKMean, LastKSum, LayerMean, MaxCls, MaxMean
from fusebench.methods.states import LayerStates, StateShape
from fusebench.methods.token_pooling import Cls, Mean

SHAPE = StateShape(blocks=4, dim=3)
LENGTHS = (3, 1, 5)


def make(side="right", dtype=torch.float64, width=6):
    """Random states with ragged rows, the padding filled with large values, and each row's real part."""
    generator = torch.Generator().manual_seed(2)
    hidden = 1e4 * torch.randn(SHAPE.states, len(LENGTHS), width, SHAPE.dim, generator=generator).to(dtype)
    mask = torch.zeros(len(LENGTHS), width, dtype=torch.bool)
    texts = []
    for row, length in enumerate(LENGTHS):
        real = slice(0, length) if side == "right" else slice(width - length, width)
        hidden[:, row, real] /= 1e4
        mask[row, real] = True
        texts.append(hidden[:, row, real])
    return LayerStates(hidden.unbind(), mask), texts


def mean_of_tokens(mix, text):
    """Mixes the layers of each token, then takes the mean over tokens: the order that the papers write."""
    tokens = [mix([text[layer, t] for layer in range(SHAPE.states)]) for t in range(text.shape[1])]
    return sum(tokens) / len(tokens)


def largest(vectors):
    return torch.stack([max(vector[d] for vector in vectors) for d in range(SHAPE.dim)])


LOOPS = [
    (FirstLast, {}, lambda h: (h[1] + h[4]) / 2),
    (FirstLast, {"first": 0}, lambda h: (h[0] + h[4]) / 2),
    (FirstLast, {"first": -2}, lambda h: (h[3] + h[4]) / 2),
    (LastKMean, {}, lambda h: (h[1] + h[2] + h[3] + h[4]) / 4),
    (LastKMean, {"k": 2}, lambda h: (h[3] + h[4]) / 2),
    (LastKSum, {"k": 3}, lambda h: h[2] + h[3] + h[4]),
    (LastKConcat, {"k": 2}, lambda h: torch.cat([h[3], h[4]])),
    (LastKConcat, {"k": 5}, lambda h: torch.cat(h)),
    (LayerMean, {}, lambda h: sum(h) / 5),
    (LayerMean, {"first": 1}, lambda h: (h[1] + h[2] + h[3] + h[4]) / 4),
    (LayerMean, {"first": -2}, lambda h: (h[3] + h[4]) / 2),
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("kind", "params", "mix"), LOOPS)
def test_a_linear_mix_commutes_with_the_mean_over_tokens(kind, params, mix, side):
    states, texts = make(side)
    expected = torch.stack([mean_of_tokens(mix, text) for text in texts])
    torch.testing.assert_close(kind(SHAPE, **params)(states), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("first", [0, 1, 3, -1])
def test_maxima_over_layers_come_after_the_pooling_of_tokens(first, side):
    states, texts = make(side)
    layers = range(first % SHAPE.states, SHAPE.states)
    of_firsts = [largest([text[layer, 0] for layer in layers]) for text in texts]
    of_means = [largest([text[layer].mean(dim=0) for layer in layers]) for text in texts]
    torch.testing.assert_close(MaxCls(SHAPE, first=first)(states), torch.stack(of_firsts))
    torch.testing.assert_close(MaxMean(SHAPE, first=first)(states), torch.stack(of_means))


def test_a_max_over_layers_does_not_commute_with_the_mean_over_tokens():
    states, texts = make()
    expected = torch.stack([mean_of_tokens(largest, text) for text in texts])
    assert (MaxMean(SHAPE, first=0)(states) - expected).abs().max() > 0.1


@pytest.mark.parametrize("kind", [LastKMean, LastKSum, LastKConcat])
def test_the_last_one_layer_is_the_mean(kind):
    states, _ = make()
    assert torch.equal(kind(SHAPE, k=1)(states), Mean(SHAPE)(states))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_the_sum_is_k_times_the_mean(k):
    states, _ = make()
    torch.testing.assert_close(LastKSum(SHAPE, k=k)(states), k * LastKMean(SHAPE, k=k)(states))


def test_the_mean_of_the_pieces_of_the_concatenation_is_the_mean_of_the_layers():
    states, _ = make()
    pieces = LastKConcat(SHAPE, k=4)(states).unflatten(1, (4, SHAPE.dim))
    torch.testing.assert_close(pieces.mean(dim=1), LastKMean(SHAPE, k=4)(states))


def test_all_states_are_the_layer_mean_and_one_is_the_pooling_itself():
    states, _ = make()
    torch.testing.assert_close(LastKMean(SHAPE, k=5)(states), LayerMean(SHAPE)(states))
    assert torch.equal(MaxCls(SHAPE, first=4)(states), Cls(SHAPE)(states))
    assert torch.equal(MaxMean(SHAPE, first=4)(states), Mean(SHAPE)(states))
    torch.testing.assert_close(FirstLast(SHAPE, first=4)(states), Mean(SHAPE)(states))


def test_equal_layers_mix_to_that_layer():
    states, _ = make()
    same = LayerStates((states.hidden[0],) * 5, states.mask)
    for fusion in (FirstLast(SHAPE), LastKMean(SHAPE), LayerMean(SHAPE), MaxMean(SHAPE)):
        torch.testing.assert_close(fusion(same), Mean(SHAPE)(same))


def test_float64_states_are_mixed_in_float64():
    """A detour through float32 would be off by 1e-8."""
    states, texts = make()
    expected = torch.stack([text.mean(dim=(0, 1)) for text in texts])
    assert (LayerMean(SHAPE)(states) - expected).abs().max() < 1e-14


def test_half_precision_adds_up_in_float32():
    """2049 = 2048 + 1 is no float16, so a running sum in half precision loses every one after the first."""
    layers = [torch.full((1, 1, 3), value, dtype=torch.float16) for value in (2048, 1, 1, 1, 1)]
    states = LayerStates(tuple(layers), torch.ones(1, 1, dtype=torch.bool))
    assert LayerMean(SHAPE)(states)[0, 0] == torch.tensor(2052 / 5).half()


@pytest.mark.parametrize("k", [0, -1, 6])
def test_more_layers_than_there_are_is_refused(k):
    for kind in (LastKMean, LastKSum, LastKConcat):
        with pytest.raises(InputError, match=f"k={k}: this backbone has 5 states, so k must be 1 to 5"):
            kind(SHAPE, k=k)


def test_a_first_layer_that_does_not_exist_is_refused():
    for kind in (FirstLast, LayerMean, MaxCls, MaxMean):
        with pytest.raises(InputError, match="layer 5 does not exist"):
            kind(SHAPE, first=5)

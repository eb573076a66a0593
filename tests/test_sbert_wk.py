"""SBERT-WK equals a loop of QR decompositions, one a token and layer, as the paper and its code define it."""

import numpy as np
import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.sbert_wk import SbertWK
from fusebench.methods.states import LayerStates, StateShape

SHAPE = StateShape(blocks=6, dim=12)


def token_of_layers(H, window, edge):
    """One token: `H` is [K, d], the states that take part, lowest first."""
    novelty, alignment = [], []
    for k in range(len(H)):
        start = k - window if edge == "released" else max(0, k - window)
        left, right = H[start:k], H[k + 1 : k + window + 1]  # a negative start is what it is in Python
        columns = np.concatenate([left, right, H[k : k + 1]]).T
        R = np.linalg.qr(columns)[1]
        r, w = R[:, -1], columns.shape[1]
        others = R[:-1, :-1] / np.linalg.norm(R[:-1, :-1], axis=0)
        cosine = others.mean(axis=1) @ r[:-1] / np.linalg.norm(r[:-1])
        alignment.append(1 / (2 * w * cosine))
        novelty.append(abs(r[-1]) / np.linalg.norm(r))
    alpha = np.array(novelty) / sum(novelty) + np.array(alignment) / sum(alignment)
    return (alpha / alpha.sum()) @ H


def text_of_tokens(text, start, window=2, edge="clipped"):
    """One text: `text` is [states, tokens, dim]; `start` is the lowest state that takes part."""
    tokens = [text[start:, t] for t in range(text.shape[1])]
    tokens = tokens[:-1] or tokens
    variances = []
    for H in tokens:
        unit = H / np.linalg.norm(H, axis=1, keepdims=True)
        variances.append(np.var([unit[k] @ unit[k + 1] for k in range(len(H) - 1)], ddof=1))
    omega = np.array(variances) / sum(variances)
    return sum(o * token_of_layers(H, window, edge) for o, H in zip(omega, tokens, strict=True))


def make(lengths=(5, 1, 2, 7), side="right", nearness=1.0, width=8):
    """States like a residual stream's, layers `nearness` apart; the padding is filled with large values."""
    generator = torch.Generator().manual_seed(3)
    hidden = 1e4 * torch.randn(SHAPE.states, len(lengths), width, SHAPE.dim, generator=generator).double()
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    texts = []
    for row, length in enumerate(lengths):
        real = slice(0, length) if side == "right" else slice(width - length, width)
        steps = torch.randn(SHAPE.states, length, SHAPE.dim, generator=generator).double()
        hidden[:, row, real] = 2 * torch.randn(length, SHAPE.dim, generator=generator).double() + nearness * steps
        mask[row, real] = True
        texts.append(hidden[:, row, real].numpy())
    return LayerStates(hidden.unbind(), mask), texts


def assert_equal(fusion, states, expected, tolerance=1e-9):
    torch.testing.assert_close(fusion(states), torch.from_numpy(np.stack(expected)), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("edge", ["clipped", "released"])
@pytest.mark.parametrize(("first", "window"), [(None, 2), (0, 2), (3, 2), (4, 2), (1, 1), (0, 3), (2, 9)])
def test_it_equals_a_loop_of_qr_decompositions(first, window, edge, side):
    states, texts = make(side=side, nearness=0.5)
    start = 2 if first is None else first
    expected = [text_of_tokens(text, start, window, edge) for text in texts]
    assert_equal(SbertWK(SHAPE, first=first, window=window, edge=edge), states, expected)


def test_the_released_edge_differs_from_the_clipped_one_only_in_the_lowest_windows():
    clipped, released = SbertWK(SHAPE, first=0), SbertWK(SHAPE, first=0, edge="released")
    assert [a == b for a, b in zip(clipped.windows, released.windows, strict=True)] == [True, False] + [True] * 5
    assert clipped.windows[1] == [0, 2, 3]
    assert released.windows[1] == [2, 3]
    states, _ = make()
    assert not torch.allclose(clipped(states), released(states), rtol=1e-3)


@pytest.mark.parametrize(("nearness", "tolerance"), [(1e-2, 1e-9), (1e-4, 1e-6), (1e-5, 1e-4)])
def test_nearly_equal_layers_are_told_apart(nearness, tolerance):
    """Novelty is then a small difference of large numbers; distances are in units of that between layers."""
    states, (text,) = make(lengths=(2,), nearness=nearness)
    H = text[2:, 0]
    gap = (SbertWK(SHAPE)(states)[0].numpy() - token_of_layers(H, 2, "clipped")) / nearness
    assert np.abs(gap).max() < tolerance


def test_equal_layers_stay_finite_and_are_that_layer():
    states, _ = make()
    same = LayerStates((states.hidden[3],) * 7, states.mask)
    found = SbertWK(SHAPE)(same)
    assert found.isfinite().all()
    torch.testing.assert_close(found[1:3], same.hidden[0][1:3, 0])  # the texts of one and two tokens


def test_two_equal_layers_among_others_stay_finite():
    states, _ = make()
    twins = LayerStates((*states.hidden[:4], states.hidden[3], *states.hidden[5:]), states.mask)
    assert SbertWK(SHAPE)(twins).isfinite().all()


def test_a_text_of_one_token_is_that_token_and_of_two_its_first():
    states, (one, two) = make(lengths=(1, 2))
    expected = [token_of_layers(one[2:, 0], 2, "clipped"), token_of_layers(two[2:, 0], 2, "clipped")]
    assert_equal(SbertWK(SHAPE), states, expected)


def test_the_last_token_does_not_matter():
    states, _ = make(lengths=(4,))
    before = SbertWK(SHAPE)(states)
    for layer in states.hidden:
        layer[0, 3] += 5
    assert torch.equal(SbertWK(SHAPE)(states), before)


def test_the_scale_of_all_states_is_the_scale_of_the_vector():
    states, _ = make()
    scaled = LayerStates(tuple(1e-3 * layer for layer in states.hidden), states.mask)
    torch.testing.assert_close(SbertWK(SHAPE)(scaled), 1e-3 * SbertWK(SHAPE)(states))


@pytest.mark.parametrize(("blocks", "start"), [(12, 4), (6, 2), (24, 8), (3, 1)])
def test_the_first_state_scales_with_depth(blocks, start):
    assert SbertWK(StateShape(blocks, 8)).layers == tuple(range(start, blocks + 1))


@pytest.mark.parametrize("params", [{"first": 5}, {"first": -1}, {"window": 0}, {"window": -2}])
def test_too_few_states_or_no_window_are_refused(params):
    with pytest.raises(InputError, match="3 states or more"):
        SbertWK(SHAPE, **params)


def test_a_released_window_that_is_empty_is_refused():
    """State 2 of 3 with window 3: nothing on its right, and the slice [-1:2] on its left is empty."""
    with pytest.raises(InputError, match="without neighbours"):
        SbertWK(SHAPE, first=4, window=3, edge="released")
    SbertWK(SHAPE, first=4, window=3, edge="clipped")

"""MDG and PDG equal plain loops, and behave as their paper intends: on received, not on released attention."""

import math

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.attention_guides import MapDiscrimination, PatternDecorrelation, unit_maps
from fusebench.methods.states import LayerStates

BLOCKS, HEADS = 3, 2
LENGTHS = (4, 1, 6)


def states_of(attention, mask=None):
    """Guides read nothing but the maps and the mask."""
    batch, tokens = attention[0].shape[0], attention[0].shape[-1]
    hidden = (torch.zeros(batch, tokens, 1),)
    mask = torch.ones(batch, tokens, dtype=torch.bool) if mask is None else mask
    return LayerStates(hidden, mask, tuple(attention))


def make(side="right", width=7, dropout=0.1):
    """Maps of ragged texts, dropped out as in training, and each text's real part [maps, queries, keys]."""
    generator = torch.Generator().manual_seed(5)
    attention = torch.full((BLOCKS, len(LENGTHS), HEADS, width, width), 1e4).double()
    mask = torch.zeros(len(LENGTHS), width, dtype=torch.bool)
    texts = []
    for row, length in enumerate(LENGTHS):
        real = slice(0, length) if side == "right" else slice(width - length, width)
        scores = torch.randn(BLOCKS, HEADS, length, length, generator=generator).double()
        kept = 1 + dropout * torch.randn(scores.shape, generator=generator).double()
        attention[:, row, :, real, real] = scores.softmax(dim=-1) * kept
        mask[row, real] = True
        texts.append(attention[:, row, :, real, real].flatten(0, 1))
    return states_of(attention.unbind(), mask), texts


def maps_by_loop(text, aggregate):
    """One unit vector a map: the mean over queries or over keys, position by position."""
    length = text.shape[-1]
    rows = []
    for attention in text:
        if aggregate == "received":
            a = torch.stack([sum(attention[i, j] for i in range(length)) / length for j in range(length)])
        else:
            a = torch.stack([sum(attention[i, j] for j in range(length)) / length for i in range(length)])
        rows.append(a / math.sqrt(sum(x**2 for x in a)))
    return rows


def mdg_by_loop(texts, temperature, aggregate):
    total = 0.0
    for text in texts:
        maps = maps_by_loop(text, aggregate)
        for a in maps:
            scores = [math.exp(float(a @ b) / temperature) for b in maps]
            total -= math.log(math.exp(float(a @ a) / temperature) / sum(scores)) / len(maps) / len(texts)
    return total


def pdg_by_loop(texts, aggregate):
    total = 0.0
    for text in texts:
        maps = maps_by_loop(text, aggregate)
        length = text.shape[-1]
        for i in range(length):
            for j in range(length):
                correlation = sum(float(a[i] * a[j]) for a in maps) - (i == j)
                total += correlation**2 / length / len(texts)
    return total


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("aggregate", ["received", "released"])
@pytest.mark.parametrize("temperature", [2.0, 0.3])
def test_mdg_equals_its_loop(temperature, aggregate, side):
    states, texts = make(side)
    found = MapDiscrimination(temperature=temperature, aggregate=aggregate)(states)
    assert found.item() == pytest.approx(mdg_by_loop(texts, temperature, aggregate), rel=1e-12)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("aggregate", ["received", "released"])
def test_pdg_equals_its_loop(aggregate, side):
    states, texts = make(side)
    found = PatternDecorrelation(aggregate=aggregate)(states)
    assert found.item() == pytest.approx(pdg_by_loop(texts, aggregate), rel=1e-12)


def attending_to(*rows):
    """One text, one block, a head a row: every query of the head attends with these weights."""
    return states_of([torch.tensor(rows, dtype=torch.float64)[None, :, None, :].repeat(1, 1, len(rows[0]), 1)])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_identical_maps_have_an_mdg_of_ln_n(count):
    found = MapDiscrimination()(attending_to(*[[0.2, 0.5, 0.3]] * count))
    assert found.item() == pytest.approx(math.log(count), abs=1e-12)


def test_separating_two_identical_maps_lowers_mdg_step_by_step():
    values = [
        MapDiscrimination()(attending_to([0.5 + gap, 0.5 - gap], [0.5 - gap, 0.5 + gap], [0.5, 0.5])).item()
        for gap in (0.0, 0.1, 0.3, 0.5)
    ]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


def test_pdg_is_zero_exactly_when_the_maps_are_orthonormal_over_positions():
    one_each = PatternDecorrelation()(attending_to([1, 0, 0], [0, 1, 0], [0, 0, 1]))
    assert one_each.item() == pytest.approx(0, abs=1e-15)
    shared = PatternDecorrelation()(attending_to([1, 0, 0], [0, 1, 0], [0, 1, 0]))
    assert shared.item() == pytest.approx((1 + 1) / 3)  # A^T A = diag(1, 2, 0)
    slanted = PatternDecorrelation()(attending_to([1, 0, 0], [0, 1, 0], [0, 0.1, 0.9]))
    assert slanted.item() > 1e-3


def test_fewer_maps_than_positions_cannot_reach_zero():
    assert PatternDecorrelation()(attending_to([1, 0, 0], [0, 1, 0])).item() == pytest.approx(1 / 3)


def test_pdg_of_random_maps_is_above_zero():
    states, _ = make()
    assert PatternDecorrelation()(states).item() > 0


def gradient(guide, width=5):
    """With respect to the scores behind softmaxed maps without dropout, as in evaluation mode."""
    generator = torch.Generator().manual_seed(6)
    scores = torch.randn(BLOCKS, 2, HEADS, width, width, generator=generator).double().requires_grad_()
    value = guide(states_of(scores.softmax(dim=-1).unbind()))
    return value.item(), torch.autograd.grad(value, scores)[0].norm().item()


@pytest.mark.parametrize("guide", [MapDiscrimination, PatternDecorrelation])
def test_released_aggregation_without_dropout_has_no_gradient_but_received_has(guide):
    """A softmax row sums to 1, so its mean over keys is 1/T whatever the model does."""
    assert gradient(guide(aggregate="released"))[1] < 1e-14
    assert gradient(guide(aggregate="received"))[1] > 1e-3


def test_released_aggregation_without_dropout_is_a_constant():
    N, L = BLOCKS * HEADS, 5
    assert gradient(MapDiscrimination(aggregate="released"))[0] == pytest.approx(math.log(N))
    expected = (L - 1) * (N / L) ** 2 + (N / L - 1) ** 2
    assert gradient(PatternDecorrelation(aggregate="released"))[0] == pytest.approx(expected)


@pytest.mark.parametrize("guide", [MapDiscrimination(), PatternDecorrelation()])
def test_padding_is_invisible(guide):
    tight = guide(make("right", 6)[0]).item()
    for side, width in (("right", 9), ("left", 6), ("left", 9)):
        assert guide(make(side, width)[0]).item() == pytest.approx(tight, rel=1e-12)


@pytest.mark.parametrize("attention", [None, ()])
@pytest.mark.parametrize("guide", [MapDiscrimination(), PatternDecorrelation()])
def test_missing_maps_raise(guide, attention):
    states, _ = make()
    with pytest.raises(ValueError, match="eager attention"):
        guide(LayerStates(states.hidden, states.mask, attention))


def test_maps_are_unit_vectors_with_nothing_on_padding():
    states, _ = make()
    maps = unit_maps(states, "received")
    assert maps.shape == (3, BLOCKS * HEADS, 7)
    torch.testing.assert_close(maps.norm(dim=-1), torch.ones(3, BLOCKS * HEADS).double())
    assert not maps.masked_select(~states.mask.unsqueeze(1)).any()


@pytest.mark.parametrize("guide", [MapDiscrimination(), MapDiscrimination(temperature=0.3), PatternDecorrelation()])
def test_gradients_are_those_of_finite_differences(guide):
    states, _ = make()
    maps = [block.clone().requires_grad_() for block in states.attention]
    for block in maps:
        block.data.clamp_(max=1)
    assert torch.autograd.gradcheck(lambda *blocks: guide(states_of(blocks, states.mask)), maps, fast_mode=True)


@pytest.mark.parametrize("guide", [MapDiscrimination(), PatternDecorrelation()])
def test_bfloat16_maps_are_normalised_in_float32(guide):
    states, _ = make()
    small = [block.bfloat16() for block in states.attention]
    assert torch.equal(
        guide(states_of(small, states.mask)), guide(states_of([b.float() for b in small], states.mask))
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(InputError, match="above 0"):
        MapDiscrimination(temperature=temperature)

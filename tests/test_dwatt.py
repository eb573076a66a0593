"""DWAtt equals a loop over texts, tokens and layers."""

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.dwatt import DWAtt
from fusebench.methods.states import StateShape
from fusebench.methods.token_pooling import Mean
from tests.tiny_states import SHAPE, assert_equal, count, make, permuted, stirred


def layer_norm(x, norm):
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * norm.weight + norm.bias


def bottleneck(x, f):
    U, _, norm, W = f
    narrow = U.weight @ x
    gelu = narrow * (1 + torch.erf(narrow / 2**0.5)) / 2
    return W.weight @ layer_norm(gelu, norm)


def token_of(fusion, z):
    """One token, `[layers, dim]`."""
    seen = z[-1] + bottleneck(z[-1], fusion.query)
    q = 1 + torch.where(seen > 0, seen, seen.exp() - 1)
    powers = [torch.exp(q @ (fusion.key.weight @ p)) for p in fusion.positions]
    total = z[-1].clone()
    for power, state, (f, norm) in zip(powers, z, fusion.values, strict=True):
        total += power / sum(powers) * layer_norm(bottleneck(state, f), norm)
    return total


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", [{}, {"first": 0}, {"first": 3, "bottleneck": 1.0, "position_dim": 2}], ids=str)
def test_it_equals_a_loop_over_tokens_and_layers(params, side):
    states, texts = make(side)
    fusion = stirred(DWAtt(SHAPE, **params), 0.2)
    expected = []
    for text in texts:
        layers = text[params.get("first", 1) :]
        expected.append(sum(token_of(fusion, layers[:, t]) for t in range(layers.shape[1])) / layers.shape[1])
    assert_equal(fusion(states), torch.stack(expected))


def test_weights_sum_to_1_over_layers_in_every_token():
    states, _ = make()
    weights = stirred(DWAtt(SHAPE), 0.2).layer_weights(states)
    assert weights.shape == (*states.mask.shape, SHAPE.blocks)
    real = weights[states.mask]
    assert_equal(real.sum(dim=1), torch.ones(len(real), dtype=torch.float64))


def test_equal_positions_weigh_layers_the_same():
    states, _ = make()
    fusion = stirred(DWAtt(SHAPE), 0.2)
    fusion.positions.data[:] = fusion.positions.data[0].clone()
    real = fusion.layer_weights(states)[states.mask]
    assert_equal(real, torch.full_like(real, 0.25))


def test_values_of_0_leave_the_mean_of_the_last_layer():
    states, _ = make()
    fusion = stirred(DWAtt(SHAPE), 0.2)
    for _, norm in fusion.values:
        norm.weight.data.zero_()
        norm.bias.data.zero_()
    assert_equal(fusion(states), Mean(SHAPE)(states))


def test_keys_belong_to_layers_not_to_what_stands_there():
    """Lower layers change places: the weights, which look at the last layer alone, stay."""
    states, _ = make()
    fusion = stirred(DWAtt(SHAPE), 0.2)
    swapped = permuted(states, [0, 2, 1, 3, 4])
    assert_equal(fusion.layer_weights(swapped)[states.mask], fusion.layer_weights(states)[states.mask])
    assert not torch.allclose(fusion(swapped), fusion(states))


def test_weights_at_768_dimensions():
    with torch.device("meta"):
        fusion = DWAtt(StateShape(12, 768))
    f = 768 * 384 * 2 + 2 * 384
    assert count(fusion) == 12 * (f + 2 * 768) + f + 12 * 24 + 24 * 768


def test_the_start_is_as_written():
    fusion = DWAtt(StateShape(blocks=12, dim=64))
    assert bool(((fusion.positions >= 0) & (fusion.positions <= 1)).all())
    assert float(fusion.positions.detach().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(fusion.key.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("params", [{"bottleneck": 0.0}, {"bottleneck": -1.0}, {"position_dim": 0}, {"first": 7}])
def test_sizes_that_leave_nothing_are_refused(params):
    with pytest.raises(InputError):
        DWAtt(SHAPE, **params)


def test_layer_shares_are_means_over_real_tokens():
    states, _ = make("left")
    fusion = stirred(DWAtt(SHAPE), 0.2)
    real = fusion.layer_weights(states)[states.mask]
    expected = {
        layer: float(sum(token[place] for token in real) / len(real)) for place, layer in enumerate((1, 2, 3, 4))
    }
    assert fusion.layer_shares(states) == pytest.approx(expected)

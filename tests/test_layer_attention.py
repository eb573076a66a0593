"""Layer-wise attention pooling equals a loop over queries and layers."""

import math

import pytest
import torch

from fusebench.methods.layer_attention import LayerAttention
from fusebench.methods.states import LayerStates, StateShape
from tests.tiny_states import SHAPE, assert_equal, count, make, permuted, stirred

VARIANTS = [{}, {"query": "last"}, {"scale": "sqrt-dim"}, {"activation": None}, {"concat": False}]


def slope(x):
    """RReLU after training: 11/48 below 0."""
    return torch.where(x < 0, 11 / 48 * x, x)


def loop(fusion, text, query="all", scale="layers", activation="rrelu", concat=True):
    """One text, keys and values again for every query."""
    act = slope if activation else (lambda x: x)
    firsts, means = text[:, 0], text.mean(dim=1)
    pooled = []
    for c in firsts if query == "all" else firsts[-1:]:
        q = act(fusion.query.weight @ c)
        scores, values = [], []
        for a in means:
            divisor = len(means) if scale == "layers" else math.sqrt(len(a))
            scores.append((q @ act(fusion.key.weight @ a)).item() / divisor)
            values.append(act(fusion.value.weight @ a))
        weights = [math.exp(s) / sum(math.exp(t) for t in scores) for s in scores]
        pooled.append(sum(w * v for w, v in zip(weights, values, strict=True)))
    mean = sum(pooled) / len(pooled)
    return torch.tanh(fusion.output.weight @ (torch.cat([firsts[-1], mean]) if concat else mean) + fusion.output.bias)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", VARIANTS, ids=str)
def test_it_equals_a_loop_over_queries_and_layers(params, side):
    states, texts = make(side)
    fusion = stirred(LayerAttention(SHAPE, **params))
    assert_equal(fusion(states), torch.stack([loop(fusion, text, **params) for text in texts]))


def test_the_loop_is_met_in_float32_too():
    states, texts = make()
    fusion = stirred(LayerAttention(SHAPE)).float()
    found = fusion(LayerStates(tuple(h.float() for h in states.hidden), states.mask))
    assert_equal(found, torch.stack([loop(fusion, text.float()) for text in texts]), 1e-6)


@pytest.mark.parametrize("params", VARIANTS, ids=str)
def test_layer_weights_sum_to_1_over_states(params):
    states, texts = make()
    alpha = stirred(LayerAttention(SHAPE, **params)).layer_weights(states)
    queries = 1 if params.get("query") == "last" else SHAPE.states
    assert alpha.shape == (len(texts), queries, SHAPE.states)
    assert_equal(alpha.sum(dim=-1), torch.ones(alpha.shape[:2], dtype=torch.float64))


def test_permuted_layers_permute_the_weights():
    states, _ = make()
    fusion, order = stirred(LayerAttention(SHAPE)), [3, 1, 4, 0, 2]
    alpha = fusion.layer_weights(states)
    assert_equal(fusion.layer_weights(permuted(states, order)), alpha[:, order][:, :, order])


def test_the_order_of_layers_below_the_last_is_not_seen():
    states, _ = make()
    fusion = stirred(LayerAttention(SHAPE))
    assert_equal(fusion(permuted(states, [3, 1, 0, 2, 4])), fusion(states))


def test_scores_of_0_are_the_mean_of_the_values():
    states, texts = make()
    fusion = stirred(LayerAttention(SHAPE, concat=False))
    fusion.query.weight.data.zero_()
    values = torch.stack([slope(text.mean(dim=1) @ fusion.value.weight.T).mean(dim=0) for text in texts])
    assert_equal(fusion(states), torch.tanh(fusion.output(values)))


def test_the_scale_counts_states_whatever_the_depth():
    assert LayerAttention(StateShape(blocks=12, dim=4)).divisor == 13
    assert LayerAttention(StateShape(blocks=12, dim=4), scale="sqrt-dim").divisor == 2


def test_weights_at_the_published_size():
    with torch.device("meta"):
        published = LayerAttention(StateShape(blocks=12, dim=768))
        alone = LayerAttention(StateShape(blocks=12, dim=768), concat=False)
    assert count(published) == 3 * 768**2 + (2 * 768 + 1) * 768 == 2_949_888
    assert count(published) - count(alone) == 768**2


def test_the_start_is_normal_with_deviation_0_02_and_no_bias():
    fusion = LayerAttention(StateShape(blocks=2, dim=64))
    for linear in (fusion.query, fusion.key, fusion.value, fusion.output):
        assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert abs(float(linear.weight.detach().mean())) < 0.002
    assert not fusion.output.bias.any()


def test_every_query_sees_keys_through_noise_of_its_own_in_training():
    """All queries are the same positive vector, so that only the noise on keys can tell them apart."""
    hidden = (torch.rand(1, 1, 4),) * SHAPE.states
    fusion = LayerAttention(StateShape(SHAPE.blocks, 4))
    torch.nn.init.eye_(fusion.query.weight)
    fusion.key.weight.data = -torch.eye(4)
    states = LayerStates(hidden, torch.ones(1, 1, dtype=torch.bool))
    alpha = fusion.train().layer_weights(states)[0]
    assert len({tuple(row.tolist()) for row in alpha}) == SHAPE.states
    assert len(fusion.eval().layer_weights(states)[0].unique()) == 1


def test_noise_on_values_averages_out_over_queries():
    """Scores are 0, so the vector is a mean of values: over N queries its variance is N times smaller than over 1."""
    torch.manual_seed(0)
    texts = torch.randn(SHAPE.states, 1, 1, SHAPE.dim).expand(-1, 4000, -1, -1)
    states = LayerStates(texts.unbind(), torch.ones(4000, 1, dtype=torch.bool))
    variance = {}
    for query in ("all", "last"):
        torch.manual_seed(0)
        fusion = LayerAttention(SHAPE, query=query, concat=False).train()
        torch.nn.init.zeros_(fusion.query.weight)
        variance[query] = fusion(states).var(dim=0).sum().item()
    assert variance["last"] / variance["all"] == pytest.approx(SHAPE.states, rel=0.15)


def test_without_activation_training_has_no_noise():
    states, _ = make()
    fusion = stirred(LayerAttention(SHAPE, activation=None))
    assert torch.equal(fusion(states), fusion.train()(states))


def test_slopes_in_training_lie_between_1_8_and_1_3():
    states, texts = make()
    fusion = LayerAttention(SHAPE, query="last", concat=False).double().train()
    fusion.query.weight.data.zero_()
    fusion.value.weight.data = -1e-3 * torch.eye(SHAPE.dim, dtype=torch.float64)
    fusion.output.weight.data = torch.eye(SHAPE.dim, dtype=torch.float64)
    found = torch.atanh(fusion(LayerStates(tuple(h.abs() for h in states.hidden), states.mask)))
    means = torch.stack([-1e-3 * text.abs().mean(dim=(0, 1)) for text in texts])
    slopes = found / means
    assert bool(((slopes > 1 / 8) & (slopes < 1 / 3)).all())

"""HIRE and its control equal GRUs that are run over one unpadded text and layer at a time."""

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.hire import BiGRU, Hire
from fusebench.methods.states import StateShape
from tests.tiny_states import SHAPE, assert_equal, count, make, stirred
from tests.whole_gru import whole_gru

VARIANTS = [
    {},
    {"first": 0},
    {"first": 2, "include_last": False},
    {"summary": "last-layer"},
    {"summary": "mean"},
    {"normalization": None},
    {"hidden": 5, "fusion_hidden": 2},
    {"pool": "first"},
]


def summary_of(fusion, layer, summary):
    output, final = whole_gru(fusion.reader)(layer)
    if summary == "mean":
        return output.mean(dim=0)
    return torch.cat([*final] if summary == "states" else [final[2], final[3]])


def loop(fusion, text, first=1, include_last=True, summary="states", normalization="softmax", pool="mean", **_):
    layers = text[first:] if include_last else text[first:-1]
    scores = torch.stack([fusion.score(summary_of(fusion, layer, summary)).squeeze() for layer in layers])
    scores = scores.softmax(dim=0) if normalization else scores
    R, A = text[-1], sum(score * layer for score, layer in zip(scores, layers, strict=True))
    F, _ = whole_gru(fusion.fusion)(torch.cat([R, A, R + A, R * A], dim=1))
    return F[0] if pool == "first" else F.mean(dim=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", VARIANTS, ids=str)
def test_it_equals_a_loop_over_texts_and_layers(params, side):
    states, texts = make(side)
    fusion = stirred(Hire(SHAPE, **params))
    found = fusion(states)
    assert found.shape == (len(texts), 2 * params.get("fusion_hidden", SHAPE.dim // 2))
    assert_equal(found, torch.stack([loop(fusion, text, **params) for text in texts]))


def gru_by_hand(gru, inputs):
    """The last state of one layer and direction: gates r, z and candidate n of the standard GRU."""
    W, U, b, c = gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0
    h = torch.zeros(gru.hidden_size, dtype=inputs.dtype)
    for x in inputs:
        (xr, xz, xn), (hr, hz, hn) = (W @ x + b).chunk(3), (U @ h + c).chunk(3)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        h = (1 - z) * torch.tanh(xn + r * hn) + z * h
    return h


@pytest.mark.parametrize("side", ["left", "right"])
def test_each_direction_ends_at_the_end_of_the_text(side):
    """Forward at the last real token, backward at the first, in the lower GRU layer."""
    _, texts = make(side)
    fusion = stirred(Hire(SHAPE))
    for k, text in ((1, texts[0]), (4, texts[2])):
        summary = fusion._summaries(text[k], torch.ones(1, len(text[k]), dtype=torch.bool))[0]
        forward, backward = summary[:3], summary[3:6]
        assert_equal(forward, gru_by_hand(fusion.reader.directions[0], text[k]))
        assert_equal(backward, gru_by_hand(fusion.reader.directions[1], text[k].flip(0)))


def test_scores_are_of_each_text_and_sum_to_1():
    states, texts = make()
    scores = stirred(Hire(SHAPE)).scores(states)
    assert scores.shape == (len(texts), SHAPE.blocks)
    assert_equal(scores.sum(dim=1), torch.ones(len(texts), dtype=torch.float64))
    assert len(scores[:, 0].unique()) == len(texts)


def test_equal_scores_make_a_the_layer_mean():
    states, texts = make()
    fusion = stirred(Hire(SHAPE))
    fusion.score.weight.data.zero_()
    A = fusion.complement(states, fusion.scores(states))
    assert_equal(A, torch.cat([text[1:].mean(dim=0) for text in texts]))


@pytest.mark.parametrize("layer", range(4))
def test_a_score_on_one_layer_makes_a_that_layer(layer):
    states, texts = make("left")
    scores = torch.eye(SHAPE.blocks, dtype=torch.float64)[[layer] * len(texts)]
    A = stirred(Hire(SHAPE)).complement(states, scores)
    assert_equal(A, torch.cat([text[1 + layer] for text in texts]))


def test_scores_that_are_not_normalized_have_a_bias_that_counts():
    states, _ = make()
    fusion = stirred(Hire(SHAPE, normalization=None))
    before = fusion.scores(states)
    fusion.score.bias.data += 1
    assert_equal(fusion.scores(states), before + 1)
    assert Hire(SHAPE).score.bias is None


@pytest.mark.parametrize(
    ("params", "sources", "layers"),
    [
        ({}, (1, 2, 3, 4), (1, 2, 3, 4)),
        ({"include_last": False}, (1, 2, 3), (1, 2, 3, 4)),
        ({"first": 0}, (0, 1, 2, 3, 4), (0, 1, 2, 3, 4)),
        ({"first": -2, "include_last": False}, (3,), (3, 4)),
    ],
)
def test_the_last_layer_is_always_read_and_scored_on_demand(params, sources, layers):
    fusion = Hire(SHAPE, **params)
    assert (fusion.sources, fusion.layers) == (sources, layers)


def test_weights_at_the_published_sizes():
    for dim, reader, fusion in ((768, 5_317_632, 7_967_232), (1024, 9_449_472, 14_161_920)):
        with torch.device("meta"):
            hire = Hire(StateShape(blocks=12, dim=dim))
        assert (count(hire.reader), count(hire.fusion), count(hire.score)) == (reader, fusion, 2 * dim)
        assert hire.out_dim == dim


@pytest.mark.parametrize("dim", [384, 768])
def test_a_bigru_of_5_layers_has_as_many_weights_as_hire(dim):
    with torch.device("meta"):
        hire, control = Hire(StateShape(6, dim)), BiGRU(StateShape(6, dim), depth=5)
    assert count(control) == pytest.approx(count(hire), rel=2e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", [{}, {"hidden": 4}, {"depth": 2}, {"pool": "first"}], ids=str)
def test_the_control_reads_the_last_layer_alone(params, side):
    states, texts = make(side)
    fusion = stirred(BiGRU(SHAPE, **params))
    outputs = [whole_gru(fusion.fusion)(text[-1])[0] for text in texts]
    pooled = [F[0] if params.get("pool") == "first" else F.mean(dim=0) for F in outputs]
    assert_equal(fusion(states), torch.stack(pooled))
    assert fusion.layers == (SHAPE.blocks,)


@pytest.mark.parametrize("kind", [Hire, BiGRU])
def test_the_first_token_leaves_only_the_forward_recurrence_idle(kind):
    states, _ = make()
    fusion = stirred(kind(SHAPE, pool="first"))
    fusion(states).sum().backward()
    idle = {name for name, weight in fusion.named_parameters() if not weight.grad.any()}
    assert idle == {"fusion.directions.0.weight_hh_l0"}


def test_grus_start_between_the_inverse_roots_of_their_width():
    fusion = Hire(StateShape(blocks=2, dim=32))
    for gru in (fusion.reader, fusion.fusion):
        largest = max(float(weight.detach().abs().max()) for weight in gru.parameters())
        assert 0.24 < largest <= 0.25  # 1 / sqrt(16)
    assert float(fusion.score.weight.detach().std()) == pytest.approx(0.02, rel=0.4)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (Hire, {"first": 4, "include_last": False}),
        (Hire, {"first": 5}),
        (Hire, {"hidden": 0}),
        (BiGRU, {"depth": 0}),
        (BiGRU, {"hidden": -1}),
    ],
)
def test_sizes_that_leave_nothing_are_refused(kind, params):
    with pytest.raises(InputError):
        kind(SHAPE, **params)


def test_layer_shares_are_mean_scores_of_the_layers_in_a():
    states, texts = make()
    fusion = stirred(Hire(SHAPE, include_last=False))
    scores = fusion.scores(states)
    expected = {layer: float(sum(scores[:, place]) / len(texts)) for place, layer in enumerate((1, 2, 3))}
    assert fusion.layer_shares(states) == pytest.approx(expected)

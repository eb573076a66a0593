"""Readers of the first tokens of all layers equal their recurrences and sums written out."""

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.layer_sequence import ClsAttention, ClsLSTM
from fusebench.methods.states import StateShape
from tests.tiny_states import SHAPE, assert_equal, count, make, permuted, stirred


def lstm_by_hand(lstm, inputs):
    """The last hidden state: gates i, f, o and candidate g of the standard LSTM."""
    h = c = torch.zeros(lstm.hidden_size, dtype=inputs.dtype)
    for x in inputs:
        gates = lstm.weight_ih_l0 @ x + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ h + lstm.bias_hh_l0
        i, f, g, o = gates.chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return h


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", [{}, {"first": 0}, {"first": 3, "width": 2}], ids=str)
def test_the_lstm_reads_first_tokens_from_low_to_high(params, side):
    states, texts = make(side)
    fusion = stirred(ClsLSTM(SHAPE, **params))
    expected = [lstm_by_hand(fusion.lstm, text[params.get("first", 1) :, 0]) for text in texts]
    assert_equal(fusion(states), torch.stack(expected))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", [{}, {"first": 0}, {"first": 3, "width": 2}], ids=str)
def test_attention_sums_first_tokens_by_their_softmaxed_scores(params, side):
    states, texts = make(side)
    fusion = stirred(ClsAttention(SHAPE, **params))
    expected = []
    for text in texts:
        firsts = text[params.get("first", 1) :, 0]
        powers = [torch.exp(fusion.query @ c) for c in firsts]
        pooled = sum(p * c for p, c in zip(powers, firsts, strict=True)) / sum(powers)
        expected.append(fusion.output.weight @ pooled)
    assert_equal(fusion(states), torch.stack(expected))


def test_a_query_of_0_weighs_layers_the_same():
    states, texts = make()
    fusion = stirred(ClsAttention(SHAPE))
    fusion.query.data.zero_()
    assert_equal(fusion.layer_weights(states), torch.full((len(texts), 4), 0.25, dtype=torch.float64))
    assert_equal(fusion(states), fusion.output(torch.stack([text[1:, 0].mean(dim=0) for text in texts])))


def test_a_long_query_picks_the_layer_that_answers_best():
    states, texts = make()
    fusion = stirred(ClsAttention(SHAPE))
    fusion.query.data *= 1e6
    best = [text[1:, 0][(text[1:, 0] @ fusion.query).argmax()] for text in texts]
    assert_equal(fusion(states), fusion.output(torch.stack(best)))


def test_only_the_lstm_sees_the_order_of_layers():
    states, _ = make()
    swapped = permuted(states, [0, 2, 1, 3, 4])
    attention, lstm = stirred(ClsAttention(SHAPE)), stirred(ClsLSTM(SHAPE))
    assert_equal(attention(swapped), attention(states))
    assert not torch.allclose(lstm(swapped), lstm(states))


def test_weights_at_768_dimensions():
    with torch.device("meta"):
        lstm, attention = ClsLSTM(StateShape(12, 768)), ClsAttention(StateShape(12, 768))
    assert count(lstm) == 4 * 768 * (2 * 768 + 2)
    assert count(attention) == 768 + 768**2


@pytest.mark.parametrize("kind", [ClsLSTM, ClsAttention])
@pytest.mark.parametrize("params", [{"width": 0}, {"first": 9}])
def test_no_width_or_layer_is_refused(kind, params):
    with pytest.raises(InputError):
        kind(SHAPE, **params)

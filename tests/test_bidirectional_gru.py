"""The GRU over many texts equals PyTorch's over one text at a time: values, gradients, weights, start."""

import pytest
import torch
from torch import nn

from fusebench.methods import bidirectional_gru
from fusebench.methods.bidirectional_gru import BidirectionalGRU
from tests.tiny_states import assert_equal, count
from tests.whole_gru import whole_gru

INPUTS, HIDDEN = 5, 3
LENGTHS = [4, 1, 7, 2, 2, 9, 1, 3, 4, 6]


def made(layers=2, lengths=LENGTHS):
    """A GRU, the tokens of texts in a row and their lengths, in float64."""
    torch.manual_seed(4)
    gru = BidirectionalGRU(INPUTS, HIDDEN, layers).double()
    return gru, torch.randn(sum(lengths), INPUTS, dtype=torch.float64), torch.tensor(lengths)


def loop(whole, tokens, lengths):
    """One text after the other."""
    read = [whole(text) for text in tokens.split(lengths.tolist())]
    return torch.cat([output for output, _ in read]), torch.stack([final for _, final in read], dim=1)


@pytest.mark.parametrize("group", [1, 3, 4, 64])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_outputs_and_final_states_equal_those_of_one_text_at_a_time(monkeypatch, layers, group):
    monkeypatch.setattr(bidirectional_gru, "_GROUP", group)
    gru, tokens, lengths = made(layers)
    for found, expected in zip(gru(tokens, lengths), loop(whole_gru(gru), tokens, lengths), strict=True):
        assert_equal(found, expected)


def test_more_texts_than_a_group_holds_come_back_in_their_order():
    gru, tokens, lengths = made(lengths=[1 + (7 * text) % 11 for text in range(150)])
    assert len(lengths) > 2 * bidirectional_gru._GROUP
    for found, expected in zip(gru(tokens, lengths), loop(whole_gru(gru), tokens, lengths), strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize("group", [3, 64])
def test_gradients_equal_those_of_one_text_at_a_time(monkeypatch, group):
    monkeypatch.setattr(bidirectional_gru, "_GROUP", group)
    gru, tokens, lengths = made()
    whole = whole_gru(gru)
    gradients = []
    for read, weights in ((gru, gru.parameters()), (lambda *given: loop(whole, *given), whole.parameters())):
        inputs = tokens.clone().requires_grad_()
        output, final = read(inputs, lengths)
        loss = output.square().sum() + (final * torch.arange(final.numel()).view(final.shape)).sum()
        gradients.append(torch.autograd.grad(loss, [inputs, *weights]))
    for found, expected in zip(*gradients, strict=True):
        assert_equal(found, expected)


def test_a_text_does_not_see_the_others():
    gru, tokens, lengths = made()
    apart = tokens.split(lengths.tolist())
    spoilt = torch.cat([text if place == 2 else torch.full_like(text, torch.nan) for place, text in enumerate(apart)])
    output, final = gru(spoilt, lengths)
    alone, last = gru(apart[2], lengths[2:3])
    assert_equal(output.split(lengths.tolist())[2], alone)
    assert_equal(final[:, 2:3], last)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_it_starts_from_the_weights_that_pytorch_draws(layers):
    torch.manual_seed(5)
    expected = nn.GRU(INPUTS, HIDDEN, num_layers=layers, bidirectional=True)
    torch.manual_seed(5)
    gru = BidirectionalGRU(INPUTS, HIDDEN, layers)
    assert count(gru) == count(expected)
    for found, weight in zip(gru.parameters(), expected.parameters(), strict=True):
        assert torch.equal(found, weight)

"""Masked reductions equal plain loops, whichever side is padded and in whichever precision."""

import pytest
import torch

from fusebench.methods import functional as F

LENGTHS = (4, 1, 6, 2)


def ragged(side, dtype=torch.float64, width=8):
    """Random vectors, the padding filled with large ones, and the mask."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(len(LENGTHS), width, 5, generator=generator, dtype=torch.float64)
    mask = torch.zeros(len(LENGTHS), width, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        mask[row, width - length :] = True
        if side == "right":
            mask[row] = mask[row].flip(0)
        elif side == "both":
            mask[row] = mask[row].roll(-1)
    hidden[~mask] = 1e4
    return hidden.to(dtype), mask


def rows(hidden, mask):
    """The real tokens of each row as lists of tokens."""
    return [[token for token, real in zip(*pair, strict=True) if real] for pair in zip(hidden, mask, strict=True)]


sides = pytest.mark.parametrize("side", ["left", "right", "both"])


@sides
def test_masked_mean_is_the_mean_of_the_real_tokens(side):
    hidden, mask = ragged(side)
    expected = torch.stack([sum(tokens) / len(tokens) for tokens in rows(hidden, mask)])
    torch.testing.assert_close(F.masked_mean(hidden, mask), expected)


@sides
def test_masked_max_is_the_largest_real_value_of_each_dimension(side):
    hidden, mask = ragged(side)
    hidden[mask] -= 10  # all real values below 0, where a mask by multiplication goes wrong
    expected = [[max(t[d].item() for t in tokens) for d in range(5)] for tokens in rows(hidden, mask)]
    assert F.masked_max(hidden, mask).tolist() == expected


@sides
def test_weighted_sum_adds_up_weight_times_token(side):
    hidden, mask = ragged(side)
    weights = torch.linspace(-1, 2, mask.numel(), dtype=torch.float64).reshape(mask.shape)
    expected = torch.stack(
        [sum(weights[b, t] * hidden[b, t] for t in range(mask.shape[1])) for b in range(mask.shape[0])]
    )
    torch.testing.assert_close(F.weighted_sum(hidden, weights), expected)


@sides
def test_positions_count_real_tokens_from_one_and_padding_is_zero(side):
    _, mask = ragged(side)
    for row, place in zip(mask, F.positions(mask), strict=True):
        assert place[row].tolist() == list(range(1, int(row.sum()) + 1))
        assert not place[~row].any()


@sides
def test_first_and_last_index_point_at_the_outermost_real_tokens(side):
    _, mask = ragged(side)
    places = [[t for t, real in enumerate(row) if real] for row in mask.tolist()]
    assert F.first_index(mask).tolist() == [place[0] for place in places]
    assert F.last_index(mask).tolist() == [place[-1] for place in places]


@sides
def test_first_and_last_token_are_the_outermost_real_ones(side):
    hidden, mask = ragged(side)
    real = rows(hidden, mask)
    assert torch.equal(F.first_token(hidden, mask), torch.stack([tokens[0] for tokens in real]))
    assert torch.equal(F.last_token(hidden, mask), torch.stack([tokens[-1] for tokens in real]))


def test_token_at_takes_one_token_of_each_row():
    hidden, _ = ragged("right")
    index = torch.tensor([3, 0, 5, 1])
    assert torch.equal(F.token_at(hidden, index), torch.stack([hidden[b, i] for b, i in enumerate(index)]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_results_have_the_dtype_of_the_states(dtype):
    hidden, mask = ragged("right", dtype)
    for reduced in (F.masked_mean, F.masked_max, F.first_token, F.last_token):
        assert reduced(hidden, mask).dtype == dtype
    assert F.weighted_sum(hidden, mask.float()).dtype == dtype


def test_half_precision_adds_up_in_float32():
    """2049 is no float16: adding ones one by one in half precision would stop at 2048."""
    hidden = torch.ones(1, 4096, 1, dtype=torch.float16)
    assert F.weighted_sum(hidden, torch.ones(1, 4096)).item() == 4096
    assert F.masked_mean(hidden, torch.ones(1, 4096, dtype=torch.bool)).item() == 1


def test_a_bfloat16_mean_is_the_float32_mean_rounded_once():
    hidden, mask = ragged("left", torch.bfloat16)
    assert torch.equal(F.masked_mean(hidden, mask), F.masked_mean(hidden.float(), mask).bfloat16())


def test_float64_stays_float64():
    """A third is not a float32: weights that took a detour through float32 would be off by 1e-8."""
    hidden = torch.ones(1, 3, 1, dtype=torch.float64) / 3
    assert F.masked_mean(hidden, torch.ones(1, 3, dtype=torch.bool)).item() == pytest.approx(1 / 3, abs=1e-15)
    assert F.accumulator(torch.float64) == torch.float64
    assert F.accumulator(torch.bfloat16) == torch.float32

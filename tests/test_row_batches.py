"""Batches go through every row once an epoch, in an order of the epoch's own, and can be taken up again."""

from itertools import chain, pairwise

import numpy as np
import pytest

from fusebench.methods.parts import Sampler
from fusebench.methods.row_batches import BatchStream
from tests.tiny_training import rows


def never(numbers):
    raise AssertionError("nobody asked for vectors")


def stream(count=14, batch_size=4, sampler=None, seed=3, embed=never):
    return BatchStream(rows(count=count), batch_size, sampler, seed, embed)


def batches(one, numbers):
    return [one.batch(number).tolist() for number in numbers]


def epoch(one, number):
    first = number * one.batches_an_epoch
    return batches(one, range(first, first + one.batches_an_epoch))


def row_numbers(one, number):
    """An epoch's rows, batch after batch."""
    return list(chain.from_iterable(epoch(one, number)))


@pytest.mark.parametrize(("count", "batch_size", "left_out"), [(14, 4, 2), (16, 4, 0), (5, 1, 0), (3, 64, 0)])
def test_an_epoch_has_every_row_once_but_the_incomplete_rest(count, batch_size, left_out):
    one = stream(count, batch_size)
    for number in range(3):
        found = epoch(one, number)
        assert {len(batch) for batch in found} == {min(batch_size, count)}
        flat = list(chain.from_iterable(found))
        assert len(flat) == len(set(flat)) == count - left_out
        assert set(flat) <= set(range(count))


def test_the_rest_of_one_epoch_comes_in_another():
    one = stream()
    assert set(chain.from_iterable(row_numbers(one, number) for number in range(6))) == set(range(14))


def test_epochs_differ_and_equal_seeds_agree():
    orders = [[epoch(stream(seed=seed), number) for number in range(3)] for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1] != orders[0][2] != orders[0][0]


class Noted(Sampler):
    """Reversed in even epochs; asks for vectors in odd ones and sorts by their first number."""

    def __init__(self):
        self.seen = []

    def wants_embeddings(self, epoch):
        return epoch % 2 == 1

    def order(self, epoch, texts, embeddings, *, seed):
        self.seen.append((epoch, texts, embeddings, seed))
        return np.arange(len(texts))[::-1] if embeddings is None else np.argsort(embeddings[:, 0])


def test_a_sampler_gives_the_order_and_gets_first_texts_and_their_vectors_as_they_are_now():
    sampler, asked, now = Noted(), [], [1.0]

    def embed(numbers):
        asked.append(numbers)
        return (now[0] * numbers[:, None]).astype(np.float32)

    one = stream(sampler=sampler, embed=embed)
    assert row_numbers(one, 0) == list(range(13, 1, -1))
    assert asked == []
    now[0] = -1.0  # what the method has learnt by the next epoch
    expected = np.argsort(-one.rows.columns[0]).tolist()
    assert row_numbers(one, 1) == expected[:12]
    assert [numbers.tolist() for numbers in asked] == [one.rows.columns[0].tolist()]
    assert [(number, texts, seed) for number, texts, _, seed in sampler.seen] == [
        (0, one.rows.first_texts, 3),
        (1, one.rows.first_texts, 3),
    ]


def test_a_restored_order_goes_on_and_the_sampler_is_not_asked_again():
    whole, sampler = stream(sampler=Noted(), embed=lambda n: n[:, None].astype(np.float32)), Noted()
    expected = batches(whole, range(6))
    half = stream(sampler=Noted(), embed=lambda n: n[:, None].astype(np.float32))
    batches(half, range(4))
    rest = stream(sampler=sampler)  # whose vectors would be other ones by now
    rest.epoch, rest.order = half.epoch, half.order
    assert batches(rest, (4, 5)) == expected[4:]
    assert sampler.seen == []


def test_batches_follow_each_other_without_overlap():
    one = stream()
    for left, right in pairwise(epoch(one, 0)):
        assert not set(left) & set(right)

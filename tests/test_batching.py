from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fusebench.methods.batching import plan_batches

LENGTHS = st.lists(st.integers(1, 600), max_size=60)
BUDGETS = st.integers(1, 4000)


@given(LENGTHS, BUDGETS)
def test_every_input_is_in_exactly_one_batch(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) for batch in batches)


@given(LENGTHS, BUDGETS)
def test_no_batch_of_several_inputs_exceeds_the_budget(lengths, budget):
    for batch in plan_batches(lengths, budget):
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


@given(LENGTHS, BUDGETS)
def test_batches_are_as_full_as_the_budget_allows(lengths, budget):
    batches = plan_batches(lengths, budget)
    for batch in batches[:-1]:
        longest = max(lengths[i] for i in batch)
        assert (len(batch) + 1) * longest > budget


@given(LENGTHS, BUDGETS)
def test_the_longest_inputs_come_first_and_equals_keep_their_order(lengths, budget):
    flat = [int(i) for batch in plan_batches(lengths, budget) for i in batch]
    assert flat == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


@given(LENGTHS, BUDGETS)
def test_the_plan_is_a_function_of_lengths_and_budget(lengths, budget):
    one, other = plan_batches(lengths, budget), plan_batches(np.asarray(lengths, dtype=np.int32), budget)
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in other]


def test_an_input_longer_than_the_budget_makes_a_batch_of_its_own():
    assert [batch.tolist() for batch in plan_batches([3, 50, 3, 60], 10)] == [[3], [1], [0, 2]]


def test_nothing_makes_no_batch():
    assert plan_batches([], 100) == []

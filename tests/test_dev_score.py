"""Dev rows are scored by Spearman's correlation, or by the mean reciprocal rank of their positives."""

import numpy as np
import pytest

from fusebench.methods.dev_score import dev_score, dev_texts
from fusebench.methods.row_batches import Rows


def made(columns, labels=None):
    columns = np.array(columns)
    return Rows(columns, ("",) * columns.shape[1], labels, np.arange(columns.shape[1]))


def vectors(count, dim=4, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def ranks(values):
    """The average place of each value among all, from 1."""
    return [np.mean([place + 1 for place, other in enumerate(sorted(values)) if other == value]) for value in values]


def test_scored_pairs_are_judged_by_the_correlation_of_ranks():
    rows = made([[3, 9, 5, 3, 20], [5, 3, 20, 9, 20]], np.array([0.1, 0.9, 0.5, 0.5, 1.0]))
    numbers = dev_texts(rows)
    assert numbers.tolist() == [3, 5, 9, 20]
    X = vectors(4)
    of = dict(zip(numbers.tolist(), X.astype(np.float64), strict=True))
    cosines = [cosine(of[a], of[b]) for a, b in rows.columns.T.tolist()]
    expected = np.corrcoef(ranks(cosines), ranks(rows.labels.tolist()))[0, 1]
    assert dev_score(rows, numbers, X) == pytest.approx(expected)


@pytest.mark.parametrize("columns", [2, 3])
def test_pairs_and_triplets_are_judged_by_the_rank_of_the_positive(columns):
    """Text 7 is the positive of two rows: neither is the other's rival."""
    rows = made([[0, 1, 2, 3], [4, 7, 7, 6], [5, 5, 5, 5]][:columns])
    numbers = dev_texts(rows)
    X = vectors(len(numbers), seed=3)
    of = dict(zip(numbers.tolist(), X.astype(np.float64), strict=True))
    reciprocal = []
    for anchor, positive in rows.columns[:2].T.tolist():
        own = cosine(of[anchor], of[positive])
        rivals = [other for other in rows.columns[1].tolist() if other != positive]
        reciprocal.append(1 / (1 + sum(cosine(of[anchor], of[other]) >= own for other in rivals)))
    assert dev_score(rows, numbers, X) == pytest.approx(np.mean(reciprocal))
    assert 5 not in numbers  # negatives are not looked at


def test_a_rival_of_equal_cosine_comes_first():
    rows = made([[0, 1], [2, 3]])
    assert dev_score(rows, dev_texts(rows), np.ones((4, 3), dtype=np.float32)) == 0.5


def test_many_rows_are_judged_as_few_are():
    rows = made(np.random.default_rng(1).permutation(4200).reshape(2, -1))
    X = vectors(4200, dim=16)
    of = X.astype(np.float64) / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
    cosines = of[rows.columns[0]] @ of[rows.columns[1]].T
    expected = (1 / (cosines >= np.diag(cosines)[:, None]).sum(axis=1)).mean()
    assert dev_score(rows, dev_texts(rows), X) == pytest.approx(expected)


def test_vectors_that_are_not_finite_or_all_alike_are_the_worst_there_is():
    rows = made([[0, 1, 2], [1, 2, 3]], np.array([0.0, 0.5, 1.0]))
    broken = vectors(4)
    broken[2, 1] = np.nan
    endless = vectors(4)
    endless[0, 0] = np.inf
    for X in (broken, endless, np.ones((4, 3), dtype=np.float32)):
        assert dev_score(rows, dev_texts(rows), X) == -np.inf


def test_the_length_of_vectors_does_not_count():
    rows = made([[0, 1, 2], [1, 2, 3]], np.array([0.0, 0.5, 1.0]))
    X = vectors(4)
    lengths = np.array([[1.0], [1e-6], [1e6], [3.0]], dtype=np.float32)
    assert dev_score(rows, dev_texts(rows), X) == dev_score(rows, dev_texts(rows), X * lengths)

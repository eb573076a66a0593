"""What is measured of the vectors of one method."""

from __future__ import annotations

import numpy as np
import pytest

from fusebench.benchmarks import geometry
from fusebench.benchmarks.embedding_space import NEIGHBOURS, QUANTITIES, Quantity, Space, space_of


def drawn(count, seed):
    return (np.random.default_rng(seed).standard_normal((count, 5)) + 1).astype(np.float32)


def test_every_quantity_is_that_of_its_function_on_vectors_scaled_as_said():
    X, left, right = drawn(40, 0), drawn(7, 1), drawn(7, 2)
    U = X / np.linalg.norm(X.astype(float), axis=1, keepdims=True)
    counts = geometry.k_occurrences(U, NEIGHBOURS)
    lengths = np.linalg.norm(X.astype(float), axis=1)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(left, right, strict=True)]
    expected = {
        "dim": 5,
        "anisotropy": (U @ U.T)[~np.eye(40, dtype=bool)].mean(),
        "uniformity": geometry.uniformity(U),
        "alignment": np.mean([2 - 2 * cosine for cosine in cosines]),
        "effective_rank": geometry.effective_rank(geometry.principal_variances(X)),
        "isoscore": geometry.isoscore(geometry.principal_variances(X)),
        "hubness": geometry.skewness(counts),
        "antihubs": np.mean(counts == 0),
        "norm": lengths.mean(),
        "norm_spread": lengths.std() / lengths.mean(),
    }
    assert space_of(X, left, right).model_dump() == pytest.approx(expected, rel=1e-5)


def test_the_quantities_are_the_numbers_of_a_space_but_for_its_width():
    assert [q.field for q in QUANTITIES] == [name for name in Space.model_fields if name != "dim"]


def test_the_length_of_vectors_changes_norms_only_and_their_scale_nothing_else():
    X, left, right = drawn(40, 0), drawn(7, 1), drawn(7, 2)
    once, twice = space_of(X, left, right).model_dump(), space_of(2 * X, 2 * left, 2 * right).model_dump()
    assert twice.pop("norm") == pytest.approx(2 * once.pop("norm"))
    assert twice == pytest.approx(once, rel=1e-5)


def test_what_rounds_to_zero_is_written_without_a_sign():
    quantity = Quantity("x", "x", "")
    assert [quantity.text(value) for value in (-0.0004, -0.0006, 1.0)] == ["0.000", "-0.001", "1.000"]

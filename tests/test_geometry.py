"""Each quantity of a set of vectors equals its slow loop, and takes its limits where its paper says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusebench.benchmarks import geometry
from fusebench.benchmarks.geometry import (
    alignment,
    anisotropy,
    effective_rank,
    isoscore,
    k_occurrences,
    linear_cka,
    norms,
    principal_variances,
    skewness,
    uniformity,
    unit,
)


def vectors(count=30, dim=6, seed=0, shift=1.0):
    return np.random.default_rng(seed).standard_normal((count, dim)) + shift


def rotation(dim, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


@pytest.fixture(params=[7, 1024], ids=["many blocks", "one block"])
def block(request, monkeypatch):
    """30 rows in blocks of 7 and a rest, and in one."""
    monkeypatch.setattr(geometry, "_BLOCK", request.param)


def test_rows_are_scaled_to_length_one():
    assert norms(unit(vectors())) == pytest.approx(1)
    assert unit(np.array([[3.0, 4.0]])) == pytest.approx(np.array([[0.6, 0.8]]))


@pytest.mark.parametrize(("value", "reason"), [(0.0, "1 of 30 vectors have length 0"), (math.nan, "NaN")])
def test_a_row_without_direction_is_refused(value, reason):
    X = vectors()
    X[3] = value
    with pytest.raises(ArithmeticError, match=reason):
        unit(X)


def test_anisotropy_is_the_mean_cosine_of_all_pairs():
    U = unit(vectors())
    pairs = [float(U[i] @ U[j]) for i in range(30) for j in range(30) if i != j]
    assert anisotropy(U) == pytest.approx(math.fsum(pairs) / len(pairs))


def test_anisotropy_is_one_for_a_single_direction_and_none_for_axes():
    assert anisotropy(unit(np.outer(np.arange(1.0, 5), [1, 2, 3]))) == pytest.approx(1)
    assert anisotropy(np.eye(5)) == pytest.approx(0)


def test_uniformity_is_the_log_of_the_mean_kernel_of_all_pairs(block):
    U = unit(vectors())
    kernel = [
        math.exp(-2 * sum((a - b) ** 2 for a, b in zip(U[i], U[j], strict=True))) for i in range(30) for j in range(i)
    ]
    assert uniformity(U) == pytest.approx(math.log(math.fsum(kernel) / len(kernel)))


def test_equal_rows_have_a_uniformity_of_zero_and_opposite_ones_of_minus_eight():
    assert uniformity(np.tile([[0.6, 0.8]], (3, 1))) == pytest.approx(0, abs=1e-12)
    assert uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)


def test_alignment_is_the_mean_squared_distance_of_the_pairs():
    left, right = np.eye(3), np.array([[1.0, 0, 0], [0, 0, 1], [0, 0, -1]])
    assert alignment(left, right) == pytest.approx((0 + 2 + 4) / 3)


def test_principal_variances_are_the_squared_singular_values_of_the_centred_rows():
    X = vectors(count=4)  # fewer rows than dimensions: the rest is 0
    singular = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    assert principal_variances(X) == pytest.approx(np.array([*(singular**2 / 3), 0, 0]), abs=1e-12)


@pytest.mark.parametrize("count", [1, 20])
def test_rows_that_differ_by_rounding_only_spread_in_no_direction(count):
    X = (np.tile(vectors(count=1), (count, 1)) * (1 + 1e-8 * vectors(count, 1))).astype(np.float32)
    with pytest.raises(ArithmeticError, match="all vectors are equal"):
        principal_variances(X)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_effective_rank_of_k_equal_singular_values_is_k(rank):
    assert effective_rank(np.array([4.0] * rank + [0.0] * (6 - rank))) == pytest.approx(rank)


def test_the_effective_rank_is_the_exponential_of_the_entropy_of_singular_values():
    shares = [2 / 6, 1 / 6, 3 / 6]
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert effective_rank(np.array([4.0, 1.0, 9.0])) == pytest.approx(expected)


@pytest.mark.parametrize("used", [1, 2, 4, 6])
def test_the_isoscore_of_k_equal_variances_of_n_is_k_less_one_of_n_less_one(used):
    assert isoscore(np.array([3.0] * used + [0.0] * (6 - used))) == pytest.approx((used - 1) / 5, abs=1e-12)


def test_the_isoscore_is_the_participation_ratio_scaled_to_zero_and_one():
    variances = principal_variances(vectors())
    ratio = variances.sum() ** 2 / np.square(variances).sum()
    assert isoscore(variances) == pytest.approx((ratio - 1) / 5)


def test_one_dimension_has_no_isoscore():
    with pytest.raises(ArithmeticError, match="one dimension"):
        isoscore(np.array([2.0]))


@pytest.mark.parametrize("count", [400, 5000])
def test_an_isotropic_sample_reaches_an_isoscore_of_about_n_over_n_plus_e(count):
    dim = 40
    found = isoscore(principal_variances(vectors(count, dim, shift=0.0)))
    assert found == pytest.approx(count / (count + dim), abs=0.02)


def test_k_occurrences_equal_their_loop(block):
    U, k = unit(vectors()), 3
    counts = [0] * 30
    for i in range(30):
        others = sorted((j for j in range(30) if j != i), key=lambda j: -float(U[i] @ U[j]))
        for j in others[:k]:
            counts[j] += 1
    assert k_occurrences(U, k).tolist() == counts
    assert sum(counts) == 30 * k


def test_a_row_in_the_middle_of_a_star_is_the_hub():
    far = np.eye(8)
    U = unit(np.vstack([far.sum(axis=0), far]))
    counts = k_occurrences(U, 1)
    assert counts[0] == 8
    assert skewness(counts) > 2


def test_too_few_rows_for_k_neighbours_are_refused():
    with pytest.raises(ArithmeticError, match="3 texts have no 3 nearest"):
        k_occurrences(np.eye(3), 3)


def test_skewness_is_the_third_standardised_moment():
    counts = np.array([0, 1, 1, 6])
    mean = 2
    second, third = (sum((n - mean) ** power for n in counts) / 4 for power in (2, 3))
    assert skewness(counts) == pytest.approx(third / second**1.5)
    assert skewness(np.array([2, 2, 2])) == 0


def test_cka_is_one_for_layers_that_differ_by_rotation_scale_and_shift():
    X = vectors()
    found = linear_cka([X, 3 * X @ rotation(6) + 5, X[:, ::-1]])
    assert found == pytest.approx(np.ones((3, 3)))


def test_cka_equals_that_of_the_gram_matrices_of_texts():
    """The paper's equation 3 with linear kernels, `tr(KHLH)` by loops over texts."""
    X, Y = vectors(), np.tanh(vectors(dim=4, seed=1)) + vectors(dim=4)

    def similarity(A, B):
        n = len(A)
        K, L = (
            np.array([[sum(a * b for a, b in zip(M[i], M[j], strict=True)) for j in range(n)] for i in range(n)])
            for M in (A, B)
        )
        centring = np.eye(n) - 1 / n
        return np.trace(K @ centring @ L @ centring)

    found = linear_cka([X, Y])
    assert found[0, 1] == found[1, 0]
    assert found[0, 1] == pytest.approx(similarity(X, Y) / math.sqrt(similarity(X, X) * similarity(Y, Y)))


def test_cka_of_a_constant_layer_is_refused():
    with pytest.raises(ArithmeticError, match="all vectors are equal"):
        linear_cka([vectors(), np.ones((30, 6))])


def test_no_function_writes_into_its_vectors():
    X = vectors()
    before = X.copy()
    unit(X), norms(X), principal_variances(X), linear_cka([X, X])
    U = unit(X)
    kept = U.copy()
    anisotropy(U), uniformity(U), k_occurrences(U, 3), alignment(U, U)
    assert np.array_equal(X, before)
    assert np.array_equal(U, kept)

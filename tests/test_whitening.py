"""Whitening equals the formula by singular values, and refuses what it cannot estimate."""

import numpy as np
import pytest

from fusebench.errors import InputError
from fusebench.methods.whitening import Whiten


def texts(count=80, dim=6, rank=None, seed=0):
    """Correlated vectors away from the origin; `rank` below `dim` leaves directions without variance."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(rank or dim, dim))
    return (generator.normal(size=(count, rank or dim)) @ mixing + 5).astype(np.float32)


def by_svd(X, Y, k):
    """`(y - mu) V diag(1 / sqrt(variance))` with V from the singular vectors of the centred data."""
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    _, singular, Vt = np.linalg.svd(centred, full_matrices=False)
    deviation = singular[:k] / np.sqrt(len(X))
    return (Y - X.mean(axis=0, dtype=np.float64)) @ Vt[:k].T / deviation


def covariance(Y):
    centred = Y.astype(np.float64) - Y.mean(axis=0)
    return centred.T @ centred / len(Y)


@pytest.mark.parametrize("k", [None, 1, 3, 6])
def test_the_fit_texts_come_out_with_mean_zero_and_identity_covariance(k):
    X = texts()
    Y = Whiten(k=k).fit(X)(X)
    assert Y.shape == (80, k or 6)
    np.testing.assert_allclose(Y.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(covariance(Y), np.eye(k or 6), atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_it_equals_the_formula_by_singular_values_up_to_the_sign_of_directions(k):
    X, new = texts(), texts(seed=1)
    found, expected = Whiten(k=k).fit(X)(new), by_svd(X, new, k)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=1e-4, atol=1e-4)


def test_with_all_directions_distances_are_those_of_mahalanobis():
    X, new = texts(), texts(seed=1)[:10]
    Y = Whiten().fit(X)(new).astype(np.float64)
    precision = np.linalg.inv(covariance(X))
    for i in range(10):
        for j in range(10):
            gap = (new[i] - new[j]).astype(np.float64)
            assert np.sum((Y[i] - Y[j]) ** 2) == pytest.approx(gap @ precision @ gap, rel=1e-4, abs=1e-4)


def test_the_directions_kept_are_those_of_largest_variance_in_falling_order():
    scales = np.array([1.0, 9.0, 3.0])
    X = (np.random.default_rng(0).normal(size=(500, 3)) * scales).astype(np.float32)
    kernel = Whiten(k=2).fit(X).state()["kernel"]
    assert np.abs(kernel).argmax(axis=0).tolist() == [1, 2]


def test_smaller_k_is_a_prefix_of_larger_k():
    X = texts()
    np.testing.assert_allclose(Whiten(k=2).fit(X)(X), Whiten(k=5).fit(X)(X)[:, :2], rtol=1e-6)


@pytest.mark.parametrize(("count", "k"), [(6, None), (4, 4), (5, 6)])
def test_as_many_directions_as_texts_are_refused(count, k):
    with pytest.raises(InputError, match=f"needs more than {k or 6} fit texts and has {count}"):
        Whiten(k=k).fit(texts(count))
    Whiten(k=k).fit(texts((k or 6) + 1))


def test_more_directions_than_dimensions_are_refused():
    with pytest.raises(InputError, match="only 6 dimensions"):
        Whiten(k=7).fit(texts())


@pytest.mark.parametrize("params", [{"k": 0}, {"k": -1}, {"eps": -1e-9}])
def test_impossible_parameters_are_refused(params):
    with pytest.raises(InputError, match="must be"):
        Whiten(**params)


def test_directions_without_variance_stay_finite_and_small():
    """Rank 3 of 6: eps keeps what float32 rounding leaves of the other directions from being blown up."""
    X, new = texts(rank=3), texts(rank=3, seed=0)[:20]
    Y = Whiten().fit(X)(new)
    assert np.isfinite(Y).all()
    expected = by_svd(X, new, 3)
    np.testing.assert_allclose(Y @ Y.T, expected @ expected.T, atol=1e-2)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance(Whiten().fit(X)(X)))[:3], 0, atol=1e-3)


def test_fit_texts_that_do_not_vary_are_refused():
    with pytest.raises(InputError, match="vary"):
        Whiten().fit(np.ones((20, 4), dtype=np.float32))
    unvaried = texts()
    unvaried[:, 2] = 0
    with pytest.raises(InputError, match="vary"):
        Whiten(eps=0.0).fit(unvaried)


def test_a_common_factor_changes_nothing():
    X, new = texts(), texts(seed=1)
    np.testing.assert_allclose(Whiten().fit(1000 * X)(1000 * new), Whiten().fit(X)(new), rtol=1e-3, atol=1e-4)

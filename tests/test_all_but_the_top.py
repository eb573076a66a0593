"""All-but-the-top equals the formula by singular vectors, one direction after the other."""

import numpy as np
import pytest

from fusebench.errors import InputError
from fusebench.methods.all_but_the_top import AllButTheTop


def texts(count=60, dim=6, seed=0):
    """Vectors with a common mean and falling variances along mixed directions."""
    generator = np.random.default_rng(seed)
    scales = 2.0 ** -np.arange(dim)
    rotation = np.linalg.qr(np.random.default_rng(9).normal(size=(dim, dim)))[0]
    return (generator.normal(size=(count, dim)) * scales @ rotation + 3).astype(np.float32)


def by_loop(X, Y, d):
    """Takes away the projection on one leading direction at a time."""
    mean = X.mean(axis=0, dtype=np.float64)
    directions = np.linalg.svd(X - mean, full_matrices=False)[2][:d]
    result = []
    for y in Y - mean:
        for u in directions:
            y = y - (u @ y) * u
        result.append(y)
    return np.array(result)


@pytest.mark.parametrize("d", [0, 1, 2, 5])
def test_it_equals_the_loop_over_directions(d):
    X, new = texts(), texts(seed=1)
    np.testing.assert_allclose(AllButTheTop(d=d).fit(X)(new), by_loop(X, new, d), rtol=1e-4, atol=1e-5)


def test_without_directions_only_the_mean_goes():
    X = texts()
    np.testing.assert_allclose(AllButTheTop(d=0).fit(X)(X), X - X.mean(axis=0), atol=1e-5)


def test_nothing_is_left_along_the_directions_and_the_rest_is_as_it_was():
    X = texts()
    part = AllButTheTop(d=2).fit(X)
    Y = part(X)
    directions = part.state()["directions"]
    np.testing.assert_allclose(directions.T @ directions, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(Y @ directions, 0, atol=1e-5)
    variances = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(Y, compute_uv=False)[:4], variances[2:], rtol=1e-3)
    np.testing.assert_allclose(part(Y + part.state()["mean"]), Y, atol=1e-5)  # a second time changes nothing


@pytest.mark.parametrize(("dim", "expected"), [(6, 1), (140, 1), (160, 2), (384, 4), (768, 8)])
def test_the_default_is_a_hundredth_of_the_dimensions_and_at_least_one(dim, expected):
    X = np.random.default_rng(0).normal(size=(20, dim)).astype(np.float32)
    assert AllButTheTop().fit(X).state()["directions"].shape == (dim, expected)


@pytest.mark.parametrize(("count", "d"), [(60, 6), (60, 7), (4, 4), (1, None)])
def test_directions_that_cannot_be_estimated_are_refused(count, d):
    with pytest.raises(InputError, match="smaller d"):
        AllButTheTop(d=d).fit(texts(count))


def test_a_negative_number_of_directions_is_refused():
    with pytest.raises(InputError, match="0 or more"):
        AllButTheTop(d=-1)


def test_fewer_texts_than_dimensions_stay_finite():
    X = texts(4)
    assert np.isfinite(AllButTheTop(d=3).fit(X)(texts(seed=1))).all()

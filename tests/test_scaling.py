"""Standardising and normalising equal their formulas, dimension by dimension and vector by vector."""

import math

import numpy as np
import pytest

from fusebench.errors import InputError
from fusebench.methods.scaling import Normalize, Standardize


def texts(count=50, seed=0):
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(count, 4)) * [1, 100, 0.01, 3] + [0, 5, -2, 100]).astype(np.float32)


def test_standardize_equals_the_z_scores_of_each_dimension():
    X, new = texts(), texts(seed=1)
    found = Standardize().fit(X)(new)
    for i in range(4):
        column = [float(x) for x in X[:, i]]
        mean = sum(column) / 50
        deviation = math.sqrt(sum((x - mean) ** 2 for x in column) / 50)
        np.testing.assert_allclose(found[:, i], (new[:, i].astype(np.float64) - mean) / deviation, rtol=1e-5)


def test_standardized_fit_texts_have_mean_zero_and_deviation_one():
    X = texts()
    Y = Standardize().fit(X)(X)
    np.testing.assert_allclose(Y.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(Y.std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3])
def test_a_dimension_that_never_varies_becomes_zero(constant):
    X, new = texts(), texts(seed=1)
    X[:, 2] = constant
    assert not Standardize().fit(X)(new)[:, 2].any()


def test_one_text_cannot_be_standardized():
    with pytest.raises(InputError, match="2 fit texts or more and has 1"):
        Standardize().fit(texts(1))


@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1.0, 1e6, 1e25])
def test_normalized_vectors_have_length_one_at_any_scale(scale):
    """The square of 1e25 or 1e-25 is no float32."""
    X = texts() * np.float32(scale)
    Y = Normalize()(X)
    np.testing.assert_allclose(np.linalg.norm(Y, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(Y[0] * np.linalg.norm(X[0].astype(np.float64)), X[0], rtol=1e-5)


def test_a_zero_vector_stays_zero():
    assert not Normalize()(np.zeros((1, 4), dtype=np.float32)).any()


def test_normalize_needs_no_fit_and_is_its_own_repetition():
    Y = Normalize()(texts())
    np.testing.assert_allclose(Normalize()(Y), Y, rtol=1e-6)
    assert Normalize.fitted is False
    assert Normalize().state() == {}

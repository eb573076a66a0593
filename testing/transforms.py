"""The contract of transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.numpy

from fusebench.methods.parts import Transform
from fusebench.testing.promises import close_arrays, part_class, require


def check_transform(transform: type[Transform] | str, /, **params: Any) -> None:
    """Asserts that a transform keeps the contract on 60 fit vectors of 12 dimensions.

    Shape, float32, finite; input untouched; rows do not talk; state saved and loaded; the order of the fit texts
    irrelevant; truthful `fitted`, `scale_free` and `out_dim`.

    Args:
        transform: the class or its registered name.
        params: its hyper-parameters.
    """
    kind = part_class(transform, Transform)

    def new() -> Transform:
        built: Transform = kind(**params)
        return built

    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(12, 12))
    fit_vectors = (generator.normal(size=(60, 12)) @ mixing + 3).astype(np.float32)
    vectors = (generator.normal(size=(9, 12)) @ mixing + 3).astype(np.float32)
    before = fit_vectors.copy(), vectors.copy()
    part = new()
    require(part.fit(fit_vectors) is part, "fit returns the transform itself")
    mapped = part(vectors)
    require(mapped.dtype == np.float32, f"vectors are float32, not {mapped.dtype}")
    expected = (len(vectors), part.out_dim(*fit_vectors.shape))
    require(mapped.shape == expected, f"out_dim is truthful: it promises {expected}, not {mapped.shape}")
    require(bool(np.isfinite(mapped).all()), "vectors are finite")
    require(np.array_equal(part(vectors), mapped), "a transform is deterministic")
    untouched = np.array_equal(fit_vectors, before[0]) and np.array_equal(vectors, before[1])
    require(untouched, "the input is untouched")
    alone = np.concatenate([part(vectors[i : i + 1]) for i in range(len(vectors))])
    close_arrays(alone, mapped, "rows do not talk: a vector alone is mapped as in a batch")
    _check_transform_state(part, new(), vectors, mapped)
    shuffled = new().fit(fit_vectors[generator.permutation(len(fit_vectors))])(vectors)
    close_arrays(shuffled @ shuffled.T, mapped @ mapped.T, "the order of the fit texts is irrelevant")
    _check_fitted_is_truthful(new, vectors, mapped)
    if part.scale_free:
        scaled = new().fit(3 * fit_vectors)(3 * vectors)
        close_arrays(_cosines(scaled), _cosines(mapped), "scale_free: scaling all vectors leaves the cosines as is")


def _check_transform_state(part: Transform, other: Transform, vectors: np.ndarray, mapped: np.ndarray) -> None:
    saved = safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in part.state().items()})
    loaded = other.load_state(safetensors.numpy.load(saved))
    require(loaded is other, "load_state returns the transform itself")
    close_arrays(loaded(vectors), mapped, "a loaded transform maps as the saved one")


def _check_fitted_is_truthful(new: Callable[[], Transform], vectors: np.ndarray, mapped: np.ndarray) -> None:
    other_texts = np.random.default_rng(1).normal(size=(60, vectors.shape[1])).astype(np.float32)
    elsewhere = new().fit(other_texts)(vectors)
    if new().fitted:
        same = elsewhere.shape == mapped.shape and np.allclose(elsewhere, mapped, rtol=1e-3)
        require(not same, "fitted is truthful: other fit texts give another map")
    else:
        close_arrays(elsewhere, mapped, "fitted is truthful: the fit texts change nothing")
        close_arrays(new()(vectors), mapped, "fitted is truthful: it maps without having been fitted")


def _cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T

"""Scaling of finished vectors: each dimension to unit variance, or each vector to unit length."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from fusebench.errors import InputError
from fusebench.methods.parts import Transform
from fusebench.methods.registry import register


@register("standardize", paper="arXiv:2109.04404")
class Standardize(Transform):
    """`y_i = (x_i - mu_i) / sigma_i`, mean and deviation of each dimension over the fit texts.

    Timkey and van Schijndel 2021, section 5 (z-scores against rogue dimensions). Departures: fitted on text
    vectors instead of token vectors; a dimension that never varies becomes 0.
    """

    scale_free = True

    def out_dim(self, texts: int, dim: int) -> int:
        """As wide as before.

        Raises:
            InputError: with fewer than 2 texts.
        """
        if texts < 2:
            raise InputError(f"standardize needs 2 fit texts or more and has {texts}: give --fit a larger set.")
        return dim

    def fit(self, X: Float[np.ndarray, "texts dim"]) -> Standardize:
        """Mean and deviation in float64."""
        self.out_dim(*X.shape)
        self.mean = X.mean(axis=0, dtype=np.float64)
        deviation = X.std(axis=0, dtype=np.float64)
        self.scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        return self

    def __call__(self, X: Float[np.ndarray, "texts dim"]) -> Float[np.ndarray, "texts dim"]:
        """Shape `[texts, dim]`."""
        return ((X - self.mean) * self.scale).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """`mean [dim]` and `scale [dim]`, float64."""
        return {"mean": self.mean, "scale": self.scale}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Standardize:
        """Takes over mean and scale."""
        self.mean, self.scale = state["mean"], state["scale"]
        return self


@register("normalize", paper="https://github.com/huggingface/sentence-transformers")
class Normalize(Transform):
    """`y = x / ||x||_2`: the Normalize module of sentence-transformers.

    Cosine cannot tell it from the vector itself; a transform after it can. Departures: none.
    """

    fitted = False
    scale_free = True

    def out_dim(self, texts: int, dim: int) -> int:
        """As wide as before."""
        return dim

    def fit(self, X: Float[np.ndarray, "texts dim"]) -> Normalize:
        """Learns nothing."""
        return self

    def __call__(self, X: Float[np.ndarray, "texts dim"]) -> Float[np.ndarray, "texts dim"]:
        """Shape `[texts, dim]`; a zero vector stays zero."""
        length = np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
        return (X / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Empty."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Normalize:
        """Nothing to take over."""
        return self

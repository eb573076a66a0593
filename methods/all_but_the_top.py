"""All-but-the-top: take away the mean and the few directions that all vectors share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.linalg
from jaxtyping import Float

from fusebench.errors import InputError
from fusebench.methods.parts import Transform
from fusebench.methods.registry import register


@register("abtt", paper="arXiv:1702.01417")
class AllButTheTop(Transform):
    """`y = (x - mu) - sum_{i<=D} (u_i . (x - mu)) u_i` with the D leading principal directions u_i.

    Mu and Viswanath 2018, algorithm 1; their rule of thumb is D = dim / 100.

    Args:
        d: directions removed; None is `max(1, round(dim / 100))`.

    Departures: fitted on text vectors instead of word vectors; the projection is of the centred vector.
    """

    scale_free = True

    def __init__(self, *, d: int | None = None) -> None:
        if d is not None and d < 0:
            raise InputError(f"abtt(d={d}): d must be 0 or more.")
        self.d = d

    def _removed(self, dim: int) -> int:
        return max(1, round(dim / 100)) if self.d is None else self.d

    def out_dim(self, texts: int, dim: int) -> int:
        """As wide as before.

        Raises:
            InputError: if that many directions cannot be estimated from that many texts.
        """
        d = self._removed(dim)
        if d >= min(texts, dim):
            raise InputError(
                f"abtt(d={d}) needs more than {d} fit texts and dimensions and has {texts} texts of {dim} "
                "dimensions: give abtt(d=...) a smaller d or --fit a larger text set."
            )
        return dim

    def fit(self, X: Float[np.ndarray, "texts dim"]) -> AllButTheTop:
        """Mean and leading directions, in float64."""
        texts, dim = X.shape
        self.out_dim(texts, dim)
        d = self._removed(dim)
        self.mean = X.mean(axis=0, dtype=np.float64)
        centred = X.astype(np.float64) - self.mean
        _, vectors = scipy.linalg.eigh(centred.T @ centred / texts)
        self.directions = vectors[:, ::-1][:, :d]
        return self

    def __call__(self, X: Float[np.ndarray, "texts dim"]) -> Float[np.ndarray, "texts dim"]:
        """Shape `[texts, dim]`."""
        centred = X - self.mean
        return (centred - centred @ self.directions @ self.directions.T).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """`mean [dim]` and `directions [dim, d]`, float64."""
        return {"mean": self.mean, "directions": self.directions}

    def load_state(self, state: Mapping[str, np.ndarray]) -> AllButTheTop:
        """Takes over mean and directions."""
        self.mean, self.directions = state["mean"], state["directions"]
        return self

"""Whitening: finished vectors with zero mean and identity covariance, the first k directions kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.linalg
from jaxtyping import Float

from fusebench.errors import InputError
from fusebench.methods.parts import Transform
from fusebench.methods.registry import register


@register("whiten", paper="arXiv:2103.15316")
class Whiten(Transform):
    """`y = (x - mu) U D^{-1/2}`, first k columns; mu and `U D U^T` are mean and covariance of the fit texts.

    Su et al. 2021 (BERT-whitening), algorithm 1.

    Args:
        k: directions kept, by falling variance; None keeps all.
        eps: added to every variance, as a share of the largest one.

    Departures: eps, which the paper lacks, keeps directions without variance finite; the result is not
    L2-normalised, because cosine does that.
    """

    scale_free = True

    def __init__(self, *, k: int | None = None, eps: float = 1e-9) -> None:
        if k is not None and k < 1:
            raise InputError(f"whiten(k={k}): k must be 1 or more.")
        if eps < 0:
            raise InputError(f"whiten(eps={eps}): eps must be 0 or more.")
        self.k = k
        self.eps = eps

    def out_dim(self, texts: int, dim: int) -> int:
        """k; all dimensions without one.

        Raises:
            InputError: with k >= the number of texts (the covariance has fewer directions), or k > dim.
        """
        k = dim if self.k is None else self.k
        if k >= texts:
            raise InputError(
                f"whitening to k={k} directions needs more than {k} fit texts and has {texts}: "
                "give whiten(k=...) a smaller k or --fit a larger text set."
            )
        if k > dim:
            raise InputError(f"whiten(k={k}): the vectors have only {dim} dimensions.")
        return k

    def fit(self, X: Float[np.ndarray, "texts dim"]) -> Whiten:
        """Mean and covariance in float64."""
        texts, dim = X.shape
        k = self.out_dim(texts, dim)
        self.mean = X.mean(axis=0, dtype=np.float64)
        centred = X.astype(np.float64) - self.mean
        variances, directions = scipy.linalg.eigh(centred.T @ centred / texts)
        order = np.argsort(variances)[::-1][:k]
        kept = variances[order] + self.eps * variances.max()
        if kept.min() <= dim * np.finfo(np.float64).eps * variances.max():  # nothing there but rounding
            raise InputError(
                "whitening needs fit texts whose vectors vary in all directions kept: give --fit another text set, "
                "whiten(k=...) a smaller k or whiten(eps=...) an eps above 0."
            )
        self.kernel = directions[:, order] / np.sqrt(kept)
        return self

    def __call__(self, X: Float[np.ndarray, "texts dim"]) -> Float[np.ndarray, "texts out"]:
        """Shape `[texts, k]`."""
        return ((X - self.mean) @ self.kernel).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """`mean [dim]` and `kernel [dim, k]`, float64."""
        return {"mean": self.mean, "kernel": self.kernel}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Whiten:
        """Takes over mean and kernel."""
        self.mean, self.kernel = state["mean"], state["kernel"]
        return self

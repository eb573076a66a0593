"""The geometry of a set of vectors: how spread, how even, how many directions, which neighbours, how long.

Every function takes float arrays with a row a text. Pairs of rows are gone through in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

_BLOCK = 1024  # rows whose similarities to all others are in memory at a time
_ROUNDING = 1e-6  # of float32 vectors, relative to their length


def unit(X: Floats) -> Doubles:
    """The rows scaled to length 1.

    Raises:
        ArithmeticError: a row is not finite, or has length 0 and so no direction.
    """
    lengths = norms(X)
    if not np.isfinite(lengths).all():
        raise ArithmeticError("the vectors hold NaN or infinity")
    if empty := int((lengths == 0).sum()):
        raise ArithmeticError(f"{empty} of {len(X)} vectors have length 0, so they have no direction")
    return X / lengths[:, None]


def norms(X: Floats) -> Doubles:
    """The Euclidean length of each row."""
    return np.linalg.norm(X.astype(np.float64), axis=1)


def anisotropy(U: Doubles) -> float:
    """Mean cosine of two different rows of length 1; 0 for directions without preference, 1 for a single one.

    Ethayarajh 2019 (arXiv:1909.00512, section 3.2) averages over random pairs; this is the mean over all of them,
    `(|sum_i u_i|^2 - N) / (N (N - 1))`.
    """
    total = U.sum(axis=0)
    return float((total @ total - np.square(U).sum()) / (len(U) * (len(U) - 1)))


def uniformity(U: Doubles, *, t: float = 2.0) -> float:
    """`log mean exp(-t |u_i - u_j|^2)` over all pairs of different rows of length 1; 0 when all are equal.

    Wang and Isola 2020 (arXiv:2005.10242, section 4.1.2), t = 2. Lower is more even.
    """
    total = 0.0
    for rows in _blocks(len(U)):
        # From the block on: pairs with earlier rows were counted twice there.
        kernel = np.exp(-t * np.maximum(0.0, 2 - 2 * U[rows] @ U[rows.start :].T))
        own = kernel[:, : len(kernel)]
        total += 2 * kernel.sum() - own.sum() - np.trace(own)
    return float(np.log(total / (len(U) * (len(U) - 1))))


def alignment(left: Doubles, right: Doubles) -> float:
    """Mean of `|u_i - v_i|^2` over pairs that belong together, rows of length 1; lower is closer.

    Wang and Isola 2020 (arXiv:2005.10242, section 4.1.1), alpha = 2.
    """
    return float(np.square(left - right).sum(axis=1).mean())


def principal_variances(X: Floats) -> Doubles:
    """The variance along each principal axis, largest first: the E eigenvalues of the rows' covariance.

    Raises:
        ArithmeticError: all rows are equal but for rounding, so there is no axis.
    """
    centred = X - X.mean(axis=0, dtype=np.float64)
    scatter = centred.T @ centred
    if np.trace(scatter) <= _ROUNDING**2 * np.square(norms(X)).sum():
        raise ArithmeticError("all vectors are equal, so they spread in no direction")
    return np.linalg.eigvalsh(scatter / (len(X) - 1))[::-1].clip(min=0.0)


def effective_rank(variances: Doubles) -> float:
    """`exp(-sum_i p_i ln p_i)`, p the singular values of the centred matrix over their sum; from 1 to E.

    Roy and Vetterli 2007 (The effective rank, EUSIPCO, equation 3 to 5). Singular values are proportional to the
    roots of the variances along the principal axes. Departures: the matrix is centred, because a common direction
    is what the anisotropy tells.
    """
    singular = np.sqrt(variances)
    shares = singular / singular.sum()
    known = shares[shares > 0]
    return float(np.exp(-(known * np.log(known)).sum()))


def isoscore(variances: Doubles) -> float:
    """How evenly the variance is spread over the E dimensions: 0 for one direction, 1 for all alike.

    Rudman et al. 2022 (IsoScore, arXiv:2108.07344, section 4): the variances along the principal axes, scaled to
    length sqrt(E), lie `defect` from the vector of ones, which is scaled to [0, 1] and then to the share of
    dimensions in use. It equals `(PR - 1) / (E - 1)` with the participation ratio `PR = (sum v)^2 / sum v^2`.
    A sample of N vectors of an isotropic distribution reaches about N / (N + E), not 1.

    Raises:
        ArithmeticError: there is a single dimension.
    """
    dim = len(variances)
    if dim < 2:
        raise ArithmeticError("vectors of one dimension are neither isotropic nor not")
    scaled = np.sqrt(dim) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (dim - np.sqrt(dim)))
    share = (dim - defect**2 * (dim - np.sqrt(dim))) ** 2 / dim**2
    return float((dim * share - 1) / (dim - 1))


def k_occurrences(U: Doubles, k: int = 10) -> NDArray[np.intp]:
    """N_k: how often each row of length 1 is among the k nearest others of a row, by cosine.

    Radovanovic et al. 2010 (Hubs in space, JMLR 11, section 2).

    Raises:
        ArithmeticError: there are no more than k rows.
    """
    if len(U) <= k:
        raise ArithmeticError(f"{len(U)} texts have no {k} nearest others each")
    single = U.astype(np.float32)  # an order needs no more
    counts = np.zeros(len(U), dtype=np.intp)
    for rows in _blocks(len(U)):
        cosines = single[rows] @ single.T
        np.fill_diagonal(cosines[:, rows], -np.inf)
        nearest = np.argpartition(cosines, len(U) - k, axis=1)[:, -k:]
        counts += np.bincount(nearest.ravel(), minlength=len(U))
    return counts


def skewness(counts: NDArray[np.intp]) -> float:
    """`E (n - mean)^3 / sd^3`, which of k-occurrences is the hubness; 0 when all are equal.

    Radovanovic et al. 2010 (equation 1). High: a few rows are neighbours of very many.
    """
    centred = counts - counts.mean()
    spread = float(np.square(centred).mean() ** 1.5)
    return float((centred**3).mean() / spread) if spread else 0.0


def linear_cka(layers: Sequence[Floats]) -> Doubles:
    """Linear CKA of every two layers, whose rows are the same texts: `|Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)`, centred.

    Kornblith et al. 2019 (arXiv:1905.00414, equation 4). 1 for layers that differ by a rotation, a scale and a
    shift. It is the biased estimate: unrelated layers reach about E / N, not 0.

    Returns:
        `[layers, layers]`, symmetric.

    Raises:
        ArithmeticError: all rows of a layer are equal.
    """
    for layer in layers:
        principal_variances(layer)  # refuses a layer without any variance
    products = np.zeros((len(layers), len(layers)))
    for i, X in enumerate(layers):
        x = X - X.mean(axis=0, dtype=np.float64)
        for j, Y in enumerate(layers[: i + 1]):
            y = Y - Y.mean(axis=0, dtype=np.float64)
            products[i, j] = products[j, i] = np.square(y.T @ x).sum()
    own = np.sqrt(products.diagonal())
    return products / np.outer(own, own)


def _blocks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _BLOCK):
        yield slice(start, min(start + _BLOCK, rows))

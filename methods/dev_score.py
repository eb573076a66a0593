"""How good a method in training is on dev rows: what the best weights and the best trial are chosen by."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from fusebench.methods.row_batches import Rows


def dev_texts(rows: Rows) -> Int[np.ndarray, " texts"]:
    """Numbers of the texts that `dev_score` wants vectors of."""
    return np.unique(rows.columns[:2])


def dev_score(rows: Rows, numbers: Int[np.ndarray, " texts"], vectors: Float[np.ndarray, "texts dim"]) -> float:
    """Spearman's correlation of cosines with the labels; without labels, mean reciprocal rank of the positives.

    Every positive of the rows is a candidate for every anchor; a candidate with the positive's own text is no rival.

    Args:
        rows: scored pairs, pairs or triplets (their negatives are not looked at).
        numbers: of the texts, rising.
        vectors: of the same texts.

    Returns:
        -inf if a vector is not finite or all cosines are equal, so that such weights are never the best.
    """
    from scipy.stats import spearmanr

    if not np.isfinite(vectors).all():
        return -np.inf
    X = np.asarray(vectors, dtype=np.float64)
    X /= np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)
    left, right = (X[np.searchsorted(numbers, column)] for column in rows.columns[:2])
    if rows.labels is not None:
        cosines = (left * right).sum(axis=1)
        if np.ptp(cosines) == 0:
            return -np.inf
        return float(spearmanr(cosines, rows.labels).statistic)
    positives = rows.columns[1]
    ranks = []
    for start in range(0, len(left), 1024):
        cosines = left[start : start + 1024] @ right.T
        own = np.take_along_axis(cosines, np.arange(start, start + len(cosines))[:, None], axis=1)
        rivals = positives[start : start + len(cosines), None] != positives[None, :]
        ranks.append(1 + ((cosines >= own) & rivals).sum(axis=1))
    return float((1 / np.concatenate(ranks)).mean())

"""Which inputs share a batch: sorted by length, as many as fit a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def plan_batches(lengths: Sequence[int] | Int[np.ndarray, " inputs"], batch_tokens: int) -> list[np.ndarray]:
    """Batches of indices, longest inputs first, so that padding is small and running out of memory shows early.

    Args:
        lengths: tokens of each input.
        batch_tokens: upper bound of rows x longest row; an input longer than that makes a batch of its own.

    Returns:
        Index arrays; every index occurs once. Equal lengths keep their order, so the plan is a function of
        the lengths alone.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // max(1, lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches

"""Scores of resamples without making the resamples: an item's weight is how often it was drawn."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

BLOCK = 64  # resamples drawn from one stream of random numbers; the results depend on it
_ROWS = 32
_TRIANGLE = np.tri(_ROWS, dtype=np.float32)


def draw_counts(units: int, resamples: int, generator: np.random.Generator) -> Singles:
    """How often each unit occurs among `units` - 1 draws with replacement, one column a resample.

    One draw fewer than units makes the variance of a resampled mean the unbiased s^2 / n, where n draws give
    (n - 1) / n of it (McCarthy and Snowden 1985); it matters where the units are few, such as seeds.

    Returns:
        Shape (units, resamples).
    """
    if units < 2:
        return np.ones((units, resamples), dtype=np.float32)
    drawn = generator.integers(0, units, size=(resamples, units - 1))
    drawn += np.arange(resamples)[:, None] * units
    counts = np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units)
    return np.ascontiguousarray(counts.T, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Items in rising order of a number; `first` and `last` are the ends of each place's group of ties, or None."""

    order: NDArray[np.intp]
    first: NDArray[np.intp] | None
    last: NDArray[np.intp] | None

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> Ranking:
        """The ranking of these numbers."""
        order = np.argsort(values, kind="stable")
        borders = np.flatnonzero(np.diff(values[order])) + 1
        if len(borders) == len(values) - 1:
            return cls(order, None, None)
        starts, ends = np.r_[0, borders], np.r_[borders, len(values)]
        return cls(order, np.repeat(starts, ends - starts), np.repeat(ends - 1, ends - starts))

    def doubled_ranks(self, weights: Singles) -> Singles:
        """Twice the average rank less one of each place, for weights in the order of the items.

        A group of ties of weight W above items of weight C has the average rank C + (W + 1) / 2.
        """
        placed = weights.take(self.order, axis=0)
        reached = _cumulated(placed)
        if self.first is None:
            return 2 * reached - placed
        return reached[self.last] + (reached - placed)[self.first]

    def cubes(self, weights: Singles) -> Floats:
        """Sum over the groups of ties, an item without ties being one, of the cube of their weight."""
        groups = weights
        if self.first is not None:
            groups = np.add.reduceat(weights.take(self.order, axis=0), np.unique(self.first), axis=0)
        return np.einsum("ib,ib,ib->b", groups, groups, groups, dtype=np.float64)


def _cumulated(weights: Singles) -> Singles:
    """The running sums down the columns.

    By blocks of rows, as a product with a triangle of ones, several times faster than `cumsum` down columns. Whole
    numbers below 2^24 make it exact, so that no order of summation can show.
    """
    rows, columns = weights.shape
    padded = np.zeros((-(-rows // _ROWS) * _ROWS, columns), dtype=np.float32)
    padded[:rows] = weights
    within = _TRIANGLE @ padded.reshape(-1, _ROWS, columns)
    within[1:] += np.cumsum(within[:-1, -1], axis=0)[:, None]
    return within.reshape(-1, columns)[:rows]


def weighted_spearman(gold: Ranking, methods: Sequence[Ranking], weights: Singles) -> Floats:
    """Spearman correlation of each method with the gold numbers, where item i occurs `weights[i]` times.

    It equals the correlation of the average ranks of the items written out that often: the sum of w r s over the
    roots of those of w r^2 and w s^2, with centred ranks; the latter are (N^3 - sum over ties of W^3) / 12.

    Args:
        gold: Of n items.
        methods: Of the same items.
        weights: Shape (n, resamples), whole numbers.

    Returns:
        Shape (methods, resamples).

    Raises:
        ArithmeticError: In a resample all gold numbers, or all of a method's, are equal.
    """
    total = weights.sum(axis=0)
    cube = total.astype(np.float64) ** 3
    weighted = np.empty_like(weights)
    weighted[gold.order] = gold.doubled_ranks(weights) - total
    weighted *= weights
    gold_spread, untied = cube - gold.cubes(weights), cube - Ranking(gold.order, None, None).cubes(weights)
    found = np.empty((len(methods), weights.shape[1]))
    for row, method in enumerate(methods):
        # the weighted gold ranks sum to zero, so the method's ranks need no centre
        shared = np.einsum(
            "ib,ib->b", weighted.take(method.order, axis=0), method.doubled_ranks(weights), dtype=np.float64
        )
        product = gold_spread * (untied if method.first is None else cube - method.cubes(weights))
        if not (product > 0).all():
            raise ArithmeticError("a resample holds only ties, so it has no correlation: the items are too few")
        found[row] = 3 * shared / np.sqrt(product)
    return found


def weighted_mean(values: NDArray[np.floating], weights: Singles) -> Floats:
    """Mean of each row of `values` (methods, n), where item i occurs `weights[i]` times: (methods, resamples)."""
    # not a matrix product: its last bits would depend on the number of threads
    return np.einsum("mi,ib->mb", np.asarray(values), weights, dtype=np.float64) / weights.sum(axis=0)


def in_blocks(
    score: Callable[[np.random.Generator, int], Floats],
    resamples: int,
    *,
    seed: int,
    stream: str,
    threads: int | None,
) -> Floats:
    """The columns that `score(generator, count)` gives for blocks of resamples, side by side.

    Every block has a generator of its own, named by `seed`, `stream` and its number, so that the result depends
    neither on the number of threads nor, but for its length, on `resamples`.

    Args:
        score: Returns shape (rows, count).
        resamples: How many columns are wanted.
        seed: Of the whole analysis.
        stream: What is resampled; other names give independent draws.
        threads: How many blocks are computed at once; None: one a processor.
    """
    name = zlib.crc32(stream.encode())

    def block(number: int) -> Floats:
        return score(np.random.default_rng([seed, name, number]), BLOCK)

    numbers = range(-(-resamples // BLOCK))
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(block, numbers)), axis=1)[:, :resamples]

"""Scores several methods on the same resamples of tasks: of items or of clusters of items, and of seeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fusebench.benchmarks.bootstrap import (
    BLOCK,
    Floats,
    Ranking,
    Singles,
    in_blocks,
    weighted_mean,
    weighted_spearman,
)
from fusebench.benchmarks.clusters import Clusters, independent
from fusebench.benchmarks.comparison import Contender, Resampled, Scheme
from fusebench.errors import InputError

RESAMPLES = 10_000


@dataclass(frozen=True, eq=False)
class PartEvidence:
    """One subset and split: a row of `values` for each seed of each contender, in order, a column an item.

    `gold` holds the human scores that the values are correlated with; None: the values are averaged.
    """

    values: NDArray[np.float32]
    gold: Floats | None
    clusters: Clusters


@dataclass(frozen=True, eq=False)
class TaskEvidence:
    """A task; its score is the mean over its parts."""

    name: str
    type: str
    parts: tuple[PartEvidence, ...]


def resample(
    contenders: Sequence[Contender],
    tasks: Sequence[TaskEvidence],
    scheme: Scheme,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    threads: int | None = None,
) -> Resampled:
    """Draws the same resamples for all contenders; the result does not depend on the number of threads.

    Tasks are fixed and each is resampled by itself. Seeds enter by normal multipliers of their deviations, as two or
    three of them resampled take a handful of values; methods with the same seeds share the multipliers, and so do the
    tasks, as a seed's weights are the same on all of them.

    Raises:
        InputError: A task has too few items for a correlation in every resample.
    """
    series = sum(len(contender.seeds) for contender in contenders)
    draws, observed = np.zeros((series, len(tasks), resamples)), np.empty((series, len(tasks)))
    multipliers = {
        seeds: in_blocks(
            partial(_multipliers, len(seeds)), resamples, seed=seed, stream=f"seeds {seeds}", threads=threads
        )
        for seeds in {contender.seeds for contender in contenders}
    }
    left_out: list[Floats] = []
    borders = np.cumsum([len(contender.seeds) for contender in contenders])[:-1]
    for column, task in enumerate(tasks):
        without: list[Floats] = []
        for number, part in enumerate(task.parts):
            score = partial(_drawn, _scorer(part), _clusters(part, scheme))
            stream = f"{task.name} {number}"
            try:
                scored = in_blocks(score, resamples, seed=seed, stream=stream, threads=threads)
                single = _jackknife(part, scheme, threads)
            except ArithmeticError as error:
                raise InputError(f"{task.name}: {error}; give a larger task, or a larger --limit") from error
            draws[:, column] += scored / len(task.parts)
            without.append(single / len(task.parts))
        observed[:, column] = np.mean([_score(part) for part in task.parts], axis=0)
        left_out.append(np.concatenate(without, axis=1))
    units = [[_clusters(part, scheme).units for part in task.parts] for task in tasks]
    return Resampled(
        contenders=tuple(contenders),
        tasks=tuple(task.name for task in tasks),
        scheme=scheme,
        observed=tuple(np.split(observed, borders)),
        draws=tuple(np.split(draws, borders)),
        jackknife=tuple(left_out),
        multipliers=multipliers,
        items=np.asarray([sum(part.values.shape[1] for part in task.parts) for task in tasks]),
        degrees=np.asarray([max(sum(of_task) - len(of_task), 1) for of_task in units]),
    )


def _clusters(part: PartEvidence, scheme: Scheme) -> Clusters:
    return part.clusters if scheme == "clusters" else independent(part.values.shape[1])


def _scorer(part: PartEvidence) -> Callable[[Singles], Floats]:
    """Scores of the rows for weights of the items: (rows, columns of the weights)."""
    if part.gold is None:
        return partial(weighted_mean, part.values)
    return partial(weighted_spearman, Ranking.of(part.gold), [Ranking.of(row) for row in part.values])


def _drawn(
    score: Callable[[Singles], Floats], clusters: Clusters, generator: np.random.Generator, count: int
) -> Floats:
    return score(clusters.weights(generator, count))


def _jackknife(part: PartEvidence, scheme: Scheme, threads: int | None) -> Floats:
    """What leaving out each unit does to the score of each row; the sum of squares is the jackknife's variance."""
    clusters, score = _clusters(part, scheme), _scorer(part)
    units = clusters.units
    blocks = [np.arange(start, min(start + BLOCK, units)) for start in range(0, units, BLOCK)]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        scores = np.concatenate(list(pool.map(lambda block: score(clusters.without(block)), blocks)), axis=1)
    return (scores - scores.mean(axis=1, keepdims=True)) * np.sqrt((units - 1) / units)


def _multipliers(seeds: int, generator: np.random.Generator, count: int) -> Floats:
    return generator.standard_normal((seeds, count))


def _score(part: PartEvidence) -> Floats:
    """The score of each row on the items themselves."""
    return _scorer(part)(np.ones((part.values.shape[1], 1), dtype=np.float32))[:, 0]

"""What resampled scores of several methods say of each score, of each difference and of who can be told apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusebench.benchmarks.bootstrap import Floats
from fusebench.benchmarks.statistics import (
    benjamini_hochberg,
    indistinguishable_groups,
    interval,
    max_t,
    smallest_detectable,
    standard_error,
)

Scheme = Literal["items", "clusters"]


@dataclass(frozen=True)
class Contender:
    """A method and the seeds it was run with; (None,) where nothing in it is random."""

    label: str
    seeds: tuple[int | None, ...]


@dataclass(frozen=True)
class Estimate:
    """A score or a difference with its uncertainty; `variances`: of the items, then of seeds, each with its
    degrees of freedom.
    """

    value: float
    low: float
    high: float
    error: float
    variances: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Difference:
    """Contender `one` less contender `other`, by their numbers, on a task or an average.

    Attributes:
        estimate: Of the difference.
        p: Two-sided, of this difference alone.
        adjusted: The same for all differences that were asked for together: family-wise, by max-T.
        effect: The difference in standard deviations of an item's part in it, Cohen's d_z for a mean; of an
            average, the average of its tasks' effects.
        detectable: The true difference that would have been found with probability 0.8 at p < 0.05.
    """

    one: int
    other: int
    scores: tuple[float, float]
    estimate: Estimate
    p: float
    adjusted: float
    effect: float
    detectable: float


@dataclass(frozen=True, eq=False)
class Resampled:
    """The scores of all contenders on the same resamples.

    Attributes:
        contenders: In the order of the evidence.
        tasks: Names, in the order of the evidence.
        scheme: Whether items or clusters of items were drawn.
        observed: Scores of each contender: (seeds, tasks).
        draws: Resampled scores of each contender: (seeds, tasks, resamples).
        jackknife: For each task, what leaving out each unit does to every seed of every contender, scaled so that the
            sum of squares is the jackknife's variance: (seeds of all contenders, units).
        multipliers: For each choice of seeds, what multiplies the deviation of each: (seeds, resamples).
        items: How many items each task has.
        degrees: Units of each task less its parts: the degrees of freedom of a variance over its units.
    """

    contenders: tuple[Contender, ...]
    tasks: tuple[str, ...]
    scheme: Scheme
    observed: tuple[Floats, ...]
    draws: tuple[Floats, ...]
    jackknife: tuple[Floats, ...]
    multipliers: Mapping[tuple[int | None, ...], Floats]
    items: NDArray[np.int_]
    degrees: NDArray[np.int_]

    def estimate(self, one: int, on: Floats, other: int | None = None) -> Estimate:
        """A contender's score, or its difference from another's, on tasks weighted by `on`, with an interval."""
        value = self._score(one, on) - (0 if other is None else self._score(other, on))
        resampled, seeds = self._resampled(one, on, other)
        error = float(standard_error(resampled))
        of_items = max(error**2 - sum(variance for variance, _ in seeds), 0.0)
        variances = ((of_items, float(self.degrees[on != 0].min())), *seeds)
        return Estimate(value, *interval(value, resampled, variances), error, variances)

    def differences(self, pairs: Sequence[tuple[int, int]], on: Floats) -> list[Difference]:
        """Differences of these pairs on tasks weighted by `on`, their p-values adjusted together."""
        estimates = [self.estimate(one, on, other) for one, other in pairs]
        resampled = np.stack([self._resampled(one, on, other)[0] for one, other in pairs])
        values = np.asarray([estimate.value for estimate in estimates])
        p = max_t(values, resampled, [estimate.variances for estimate in estimates])
        return [
            Difference(
                one=one,
                other=other,
                scores=(self._score(one, on), self._score(other, on)),
                estimate=estimate,
                p=float(single),
                adjusted=float(adjusted),
                effect=self._effect(one, other, on),
                detectable=smallest_detectable(estimate.error, estimate.variances),
            )
            for (one, other), estimate, single, adjusted in zip(pairs, estimates, *p, strict=True)
        ]

    def by_seed(self) -> Resampled:
        """The same with each seed of a contender as a contender of its own, in order."""
        return replace(
            self,
            contenders=tuple(Contender(own.label, (seed,)) for own in self.contenders for seed in own.seeds),
            observed=tuple(row[None] for own in self.observed for row in own),
            draws=tuple(rows[None] for own in self.draws for rows in own),
        )

    def against(self, baseline: int, on: Floats) -> list[Difference]:
        """Every other contender less the baseline: the default family."""
        return self.differences([(k, baseline) for k in range(len(self.contenders)) if k != baseline], on)

    def every_pair(self, on: Floats) -> list[Difference]:
        """Exploratory: all pairs, `adjusted` by Benjamini and Hochberg, for the share of false positives."""
        found = self.differences(list(itertools.combinations(range(len(self.contenders)), 2)), on)
        shares = benjamini_hochberg(np.asarray([difference.p for difference in found]))
        return [replace(difference, adjusted=float(p)) for difference, p in zip(found, shares, strict=True)]

    def groups(self, on: Floats, level: float = 0.05) -> list[tuple[int, ...]]:
        """The maximal sets of contenders no two of which differ by the max-T test over all pairs, best first."""
        best_first = sorted(range(len(self.contenders)), key=lambda k: -self._score(k, on))
        different = np.zeros((len(best_first), len(best_first)), dtype=np.bool_)
        pairs = list(itertools.combinations(range(len(best_first)), 2))
        asked = [(best_first[i], best_first[j]) for i, j in pairs]
        for (i, j), found in zip(pairs, self.differences(asked, on) if asked else [], strict=True):
            different[i, j] = different[j, i] = found.adjusted < level
        return [tuple(best_first[k] for k in group) for group in indistinguishable_groups(different)]

    def _effect(self, one: int, other: int, on: Floats) -> float:
        """The weighted mean over tasks of the difference over its standard error, times the root of the items."""
        effect = 0.0
        for task in np.flatnonzero(on):
            alone = np.eye(len(on))[task]
            error = float(standard_error(self._resampled(one, alone, other)[0])) * float(np.sqrt(self.items[task]))
            value = self._score(one, alone) - self._score(other, alone)
            effect += float(on[task]) * value / error if error else 0.0
        return effect

    def _score(self, contender: int, on: Floats) -> float:
        return float((self.observed[contender] @ on).mean())

    def _resampled(self, one: int, on: Floats, other: int | None) -> tuple[Floats, list[tuple[float, float]]]:
        """Resampled scores or differences, and the variances that seeds add, with their degrees of freedom.

        Items are drawn for the mean over the seeds, and the spread of the seeds' scores on all items is added. Noise
        of a seed on single items is in both, which errs on the careful side. Matched seeds are taken as pairs,
        others for each method by itself.
        """
        resampled = sum(
            (on[task] * self._calibrated(one, int(task), other) for task in np.flatnonzero(on)),
            start=np.zeros(self.draws[one].shape[2]),
        )
        parts = [(self.observed[k] @ on, self.contenders[k].seeds) for k in (one, other) if k is not None]
        if len(parts) == 2 and parts[0][1] == parts[1][1]:
            parts = [(parts[0][0] - parts[1][0], parts[0][1])]
        variances = []
        for sign, (scores, seeds) in zip((1, -1), parts, strict=False):
            if (count := len(seeds)) > 1:
                deviations = sign * (scores - scores.mean()) / np.sqrt(count * (count - 1))
                resampled = resampled + np.einsum("s,sb->b", deviations, self.multipliers[seeds])
                variances.append((float((deviations**2).sum()), count - 1.0))
        return resampled, variances

    def _calibrated(self, one: int, task: int, other: int | None) -> Floats:
        """Resampled scores or differences on a task, their spread corrected for pairs of units.

        A score depends on units and on pairs of units: on which of two similar items is ranked higher, or on the two
        texts of a pair. The variance that pairs bring is counted three times by resampling with replacement and
        twice by the jackknife (Efron and Stein 1981), while both count that of single units once. Twice the jackknife
        less the resamples counts both once; it is at least a third of the resamples'. Without this, methods that
        are nearly equal are hardly ever told apart. Pairs matter little to the score of one method over items,
        which is left as it is.
        """
        resampled = self.draws[one][:, task].mean(axis=0)
        if other is None and self.scheme == "items":
            return resampled
        single = self._left_out(one, task)
        if other is not None:
            resampled = resampled - self.draws[other][:, task].mean(axis=0)
            single = single - self._left_out(other, task)
        variance, mean = float(np.var(resampled, ddof=1)), resampled.mean()
        if variance == 0:
            return resampled
        corrected = max(2 * float((single**2).sum()) - variance, variance / 3)
        return mean + np.sqrt(corrected / variance) * (resampled - mean)

    def _left_out(self, contender: int, task: int) -> Floats:
        first = sum(len(before.seeds) for before in self.contenders[:contender])
        return self.jackknife[task][first : first + len(self.contenders[contender].seeds)].mean(axis=0)


def averages(types: Mapping[str, str]) -> dict[str, Floats]:
    """Weights of the tasks in the averages that are made of several of them.

    Args:
        types: Type of each task, in the order of the weights.
    """
    return {name: on for name, on in board_averages(types).items() if np.count_nonzero(on) > 1}


def board_averages(types: Mapping[str, str]) -> dict[str, Floats]:
    """Weights of the tasks in every average that a board shows: each type, then, of several, all types alike."""
    kinds = {kind: np.asarray([float(own == kind) for own in types.values()]) for kind in types.values()}
    means = {f"{kind} avg": member / member.sum() for kind, member in kinds.items()}
    return means | ({"overall": np.mean(list(means.values()), axis=0)} if len(means) > 1 else {})

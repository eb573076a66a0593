"""From resampled scores to intervals, p-values and groups of methods that cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, groupby
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm, t

from fusebench.benchmarks.bootstrap import Floats

Variances = Sequence[tuple[float, float]]  # parts of a variance, each with its degrees of freedom

LEVEL = 0.95
POWER = 0.80


def critical(tail: float, variances: Variances) -> float:
    """The ratio of a difference to its standard error that is exceeded with this probability.

    The critical values of the independent parts of the variance, weighted by the parts (Cochran and Cox 1950). It is
    Student's for one part. For several it errs on the careful side, where the degrees of freedom of Welch and
    Satterthwaite give false positives if one part, such as that of two or three seeds, has very few.
    """
    parts = [(variance, degrees) for variance, degrees in variances if variance > 0]
    if not parts:
        return float(norm.isf(tail))
    return sum(v * float(t.isf(tail, degrees)) for v, degrees in parts) / sum(v for v, _ in parts)


def normal_equivalent(ratio: float, variances: Variances) -> float:
    """The normal ratio whose tail is that of this ratio of a difference to its standard error."""
    if ratio == 0 or not np.isfinite(ratio):
        return ratio
    farthest = min(ratio, 37.0)  # beyond it a tail is no number above zero
    if critical(norm.sf(farthest), variances) <= ratio:
        return farthest
    return float(brentq(lambda z: critical(norm.sf(z), variances) - ratio, 0.0, farthest, xtol=1e-9))


def interval(estimate: float, resampled: Floats, variances: Variances, level: float = LEVEL) -> tuple[float, float]:
    """Expanded percentile interval (Hesterberg 2015, What teachers should know about the bootstrap).

    The quantiles of the resampled scores, their distances from the estimate stretched by t / z. Unlike a normal
    interval it keeps the skew of a correlation near its bound; unlike a plain percentile interval it knows that few
    units say little about their own spread. `scripts/false_positive_rate.py` measures its coverage beside that of
    plain percentiles and of BCa, which costs one more score a unit.

    Args:
        estimate: Of all items.
        resampled: One score a resample.
        variances: The independent parts of the variance, with their degrees of freedom, such as units - 1.
        level: Of confidence.
    """
    tail = (1 - level) / 2
    stretch = critical(tail, variances) / float(norm.isf(tail))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return estimate + stretch * float(low - estimate), estimate + stretch * float(high - estimate)


def standard_error(resampled: Floats) -> Floats:
    """Standard deviation over the last axis, the resamples."""
    return np.std(resampled, axis=-1, ddof=1)


def max_t(differences: Floats, resampled: Floats, variances: Sequence[Variances]) -> tuple[Floats, Floats]:
    """p-values of the hypotheses that each difference is zero, two-sided: single, and adjusted for all of them.

    The null distribution is that of the resampled differences about their own means, in units of their standard
    errors; adjusted p-values compare with the largest of them in each resample (single-step max-T: Westfall and
    Young 1993), which controls the chance of any false positive and uses how differences go together. The standard
    error is one for all resamples, so the distribution is near normal where the truth is near t: the observed
    ratio is first turned into the normal ratio of equal p.

    Args:
        differences: Shape (hypotheses,).
        resampled: Shape (hypotheses, resamples), from one shared set of resamples.
        variances: The parts of the variance of each, as of `interval`.

    Returns:
        Single and adjusted p-values; none is below 1 / (resamples + 1).
    """
    errors = standard_error(resampled)
    varies = errors > 0
    scale = np.where(varies, errors, 1.0)
    # a difference that is zero in every resample is no evidence; one that never varies is all there can be
    ratio = np.where(varies, np.abs(differences) / scale, np.where(differences == 0, 0.0, np.inf))
    observed = np.asarray([normal_equivalent(float(own), parts) for own, parts in zip(ratio, variances, strict=True)])
    deviations = np.abs(resampled - resampled.mean(axis=1, keepdims=True)) / scale[:, None]
    # the share of resamples at or beyond; sums of the same terms in another order are no difference
    observed = (observed * (1 - 1e-9))[:, None]
    count = resampled.shape[1] + 1
    single = (1 + (deviations >= observed).sum(axis=1)) / count
    adjusted = (1 + (deviations.max(axis=0) >= observed).sum(axis=1)) / count
    return single, adjusted


def benjamini_hochberg(p: Floats) -> Floats:
    """p-values adjusted for the expected share of false positives among the rejections."""
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def smallest_detectable(error: float, variances: Variances, level: float = LEVEL, power: float = POWER) -> float:
    """The true difference that a two-sided test with this standard error finds with that probability."""
    return error * (critical((1 - level) / 2, variances) + critical(1 - power, variances))


def p_text(p: float, resamples: int) -> str:
    """A p-value for people; below the resolution of the resamples as `<1/B`."""
    if p * (resamples + 1) < 1.5:
        return f"<1/{resamples}"
    return f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def share_text(adjusted: float, p: float, resamples: int) -> str:
    """The Benjamini-Hochberg p-value of a test with this p: a bound where the p itself is one."""
    if p * (resamples + 1) < 1.5:
        return f"<{np.ceil(adjusted * 1e4) / 1e4:.4f}"
    return p_text(adjusted, resamples)


def indistinguishable_groups(different: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """The maximal sets of methods no two of which are told apart, each in rising order.

    "Not told apart" is not transitive, so sets may overlap. Insert-and-absorb (Piepho 2004): a set that holds two
    methods that differ is split in two, and a set within another is dropped.

    Args:
        different: Symmetric; whether the methods of a row and a column are told apart.
    """
    groups = {frozenset(range(len(different)))}
    for one, other in zip(*np.nonzero(np.triu(different, 1)), strict=True):
        split = {group for group in groups if one in group and other in group}
        pieces = {group - {int(member)} for group in split for member in (one, other)}
        groups = (groups - split) | pieces
        groups -= {piece for piece in pieces if any(piece < group for group in groups)}
    return sorted(tuple(sorted(group)) for group in groups)


def covering(groups: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """As few of the groups as say the same: every two methods that share one of the groups share one of these.

    Fifty methods can have dozens of maximal groups, most of which tell nothing new. Which are the fewest is a clique
    cover, which nobody knows to find fast; the group with most pairs that no chosen one has is taken, time and again
    (Gramm et al. 2008, Data reduction and exact algorithms for clique cover, for letter displays). The order is kept.
    """
    pairs = [set(combinations_with_replacement(group, 2)) for group in groups]
    left: set[tuple[int, int]] = set().union(*pairs)
    chosen: set[int] = set()
    while left:
        best = max(range(len(groups)), key=lambda k: (len(pairs[k] & left), -k))
        chosen.add(best)
        left -= pairs[best]
    return [group for number, group in enumerate(groups) if number in chosen]


def letters(groups: Sequence[tuple[int, ...]], count: int) -> list[str]:
    """What each method is marked with: methods that share a letter are not told apart, all others are.

    Three letters or more in a row are written as a span: `b-e`.
    """
    groups = covering(groups)
    names = [*ascii_lowercase, *(a + b for a in ascii_lowercase for b in ascii_lowercase)]
    if len(groups) > len(names):
        raise ValueError(f"{len(groups)} groups cannot be lettered")
    return [
        " ".join(_spans([number for number, group in enumerate(groups) if method in group], names))
        for method in range(count)
    ]


def _spans(numbers: Sequence[int], names: Sequence[str]) -> Iterator[str]:
    for _, run in groupby(enumerate(numbers), key=lambda place: place[1] - place[0]):
        own = [names[number] for _, number in run]
        yield f"{own[0]}-{own[-1]}" if len(own) > 2 else "".join(own) if len(own[-1]) == 1 else " ".join(own)

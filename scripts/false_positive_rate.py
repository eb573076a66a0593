"""How often methods of equal true score are told apart, and how often intervals hold the true score.

    python scripts/false_positive_rate.py --repetitions 2000 --resamples 1000

Each repetition makes new data in which the methods differ item by item and their true scores are equal. A test at
5 % should reject in 5 % of the repetitions, and among several comparisons at least once in no more. Writes
results/statistics/false_positive_rate.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm, spearmanr

from fusebench.benchmarks.atomic import atomic_write
from fusebench.benchmarks.bootstrap import Floats, Ranking, weighted_spearman
from fusebench.benchmarks.clusters import Clusters, independent
from fusebench.benchmarks.comparison import Contender, Scheme
from fusebench.benchmarks.resampling import PartEvidence, TaskEvidence, resample

LEVEL = 0.05
Data = tuple[list[Contender], list[TaskEvidence]]


@dataclass(frozen=True)
class Rate:
    """What was counted in one setting; `low` and `high` are where 95 % of the counts of a true 5 % lie."""

    setting: str
    scheme: str
    repetitions: int
    rejected: float  # share of all comparisons with the first method whose own p is below 5 %
    comparisons: int  # with the first method, a repetition
    family_wise: float | None  # any adjusted p below 5 %, None with one comparison
    low: float
    high: float
    expected: str


def _task(
    values: Floats, gold: Floats | None = None, clusters: Clusters | None = None, name: str = "task"
) -> TaskEvidence:
    held = values.astype(np.float32)
    part = PartEvidence(held, gold, clusters or independent(values.shape[1]))
    return TaskEvidence(name, "Retrieval" if gold is None else "STS", (part,))


def _single(methods: int) -> list[Contender]:
    return [Contender(f"method {k}", (None,)) for k in range(methods)]


def similarities(random: np.random.Generator, pairs: int, methods: int, noise: float = 0.3) -> tuple[Floats, Floats]:
    """Gold scores in half steps from 0 to 5, and similarities with independent noise of equal variance a method."""
    truth = random.standard_normal(pairs)
    gold = np.clip(np.round(2 * (2.5 + truth + 0.6 * random.standard_normal(pairs))) / 2, 0, 5)
    return gold, truth + noise * random.standard_normal((methods, pairs))


def sts(pairs: int, methods: int, noise: float = 0.3) -> Callable[[np.random.Generator], Data]:
    """Independent pairs."""

    def make(random: np.random.Generator) -> Data:
        gold, values = similarities(random, pairs, methods, noise)
        return _single(methods), [_task(values, gold)]

    return make


def retrieval(queries: int, methods: int) -> Callable[[np.random.Generator], Data]:
    """nDCG-like scores with many zeros and ones; query by query the labels of the methods are shuffled."""

    def make(random: np.random.Generator) -> Data:
        ease = random.beta(0.6, 0.6, queries)
        ranks = random.geometric(np.clip(ease, 0.02, 0.98), (methods, queries))
        # a method of its own kind a row, as the shuffle makes their true scores equal all the same
        ranks[0] += random.random(queries) < 0.3
        values = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0)
        return _single(methods), [_task(random.permuted(values, axis=0))]

    return make


def three_tasks(random: np.random.Generator) -> Data:
    """Two STS tasks and a retrieval task, averaged."""
    (_, one), (_, two), (_, three) = sts(150, 4)(random), sts(400, 4)(random), retrieval(80, 4)(random)
    return _single(4), [TaskEvidence(str(k), t[0].type, t[0].parts) for k, t in enumerate((one, two, three))]


def groups(random: np.random.Generator) -> Data:
    """100 groups of 4 pairs with a common text: noise and truth are half the group's."""
    group = np.repeat(np.arange(100), 4)
    truth = (random.standard_normal(100)[group] + random.standard_normal(400)) / np.sqrt(2)
    gold = np.round(2 * (truth + 0.6 * random.standard_normal(400))) / 2
    noise = (random.standard_normal((2, 100))[:, group] + random.standard_normal((2, 400))) / np.sqrt(2)
    return _single(2), [_task(truth + 0.5 * noise, gold, Clusters("groups", group, group, 100))]


def documents(random: np.random.Generator) -> Data:
    """All pairs of 50 documents, each with an effect of its own on the truth and on every method's noise."""
    left, right = np.triu_indices(50, 1)

    def effect(rows: int) -> Floats:
        own = random.standard_normal((rows, 50))
        return (own[:, left] + own[:, right] + random.standard_normal((rows, len(left)))) / np.sqrt(3)

    truth = effect(1)[0]
    gold = truth + 0.6 * effect(1)[0]
    return _single(2), [_task(truth + 0.5 * effect(2), gold, Clusters("nodes", left, right, 50))]


def sparse(random: np.random.Generator) -> Data:
    """400 pairs of 250 texts at random, as where sentences recur: effects of texts and of pairs."""
    ends = random.integers(0, 250, (2, 400))
    left, right = ends[0], np.where(ends[0] == ends[1], (ends[1] + 1) % 250, ends[1])

    def effect(rows: int) -> Floats:
        own = random.standard_normal((rows, 250))
        return (own[:, left] + own[:, right] + random.standard_normal((rows, 400))) / np.sqrt(3)

    truth = effect(1)[0]
    gold = truth + 0.6 * effect(1)[0]
    return _single(2), [_task(truth + 0.5 * effect(2), gold, Clusters("nodes", left, right, 250))]


def seeds(count: int, matched: bool) -> Callable[[np.random.Generator], Data]:
    """Two trained methods whose seeds are as good as their noise: each seed has an effect on all items."""

    def make(random: np.random.Generator) -> Data:
        gold, base = similarities(random, 200, 1)
        # a seed that weighs the noise more is worse on every item
        weight = 0.4 + 0.2 * random.random((2 * count, 1))
        values = base + weight * random.standard_normal((2 * count, 200))
        own = tuple(range(count))
        other = own if matched else tuple(range(count, 2 * count))
        return [Contender("one", own), Contender("other", other)], [_task(values, gold)]

    return make


def shifts(random: np.random.Generator) -> Data:
    """A trained method whose 3 seeds each shift all queries, against one without seeds."""
    base = random.random(60)
    trained = base + 0.1 * random.standard_normal((3, 1)) + 0.1 * random.standard_normal((3, 60))
    values = np.concatenate([trained, base[None] + 0.1 * random.standard_normal(60)])
    return [Contender("trained", (0, 1, 2)), Contender("other", (None,))], [_task(values)]


def rate(
    name: str,
    make: Callable[[np.random.Generator], Data],
    scheme: Scheme,
    repetitions: int,
    resamples: int,
    expected: str,
) -> Rate:
    """Counts rejections against the first method, on the mean over the tasks."""
    rejected = family_wise = hypotheses = 0
    for repetition in range(repetitions):
        contenders, tasks = make(np.random.default_rng([repetition, len(name)]))
        found = resample(contenders, tasks, scheme, seed=repetition, resamples=resamples, threads=1)
        family = found.against(0, np.full(len(tasks), 1 / len(tasks)))
        hypotheses = len(family)
        rejected += sum(difference.p < LEVEL for difference in family)
        family_wise += any(difference.adjusted < LEVEL for difference in family)
    low, high = binom.ppf(0.025, repetitions, LEVEL), binom.isf(0.025, repetitions, LEVEL)
    return Rate(
        setting=name,
        scheme=scheme,
        repetitions=repetitions,
        rejected=rejected / (repetitions * hypotheses),
        comparisons=hypotheses,
        family_wise=family_wise / repetitions if hypotheses > 1 else None,
        low=float(low / repetitions),
        high=float(high / repetitions),
        expected=expected,
    )


def coverage(pairs: int, repetitions: int, resamples: int) -> dict[str, object]:
    """How often 95 % intervals of one Spearman correlation hold the true one: ours, plain percentile, BCa."""
    gold, values = similarities(np.random.default_rng(0), 1_000_000, 1)
    true = float(spearmanr(gold, values[0])[0])
    held = {"expanded percentile": 0, "percentile": 0, "BCa": 0}
    width = dict.fromkeys(held, 0.0)
    for repetition in range(repetitions):
        gold, values = similarities(np.random.default_rng([repetition, pairs, 1]), pairs, 1)
        found = resample(_single(1), [_task(values, gold)], "items", seed=repetition, resamples=resamples, threads=1)
        estimate, draws = found.estimate(0, np.ones(1)), found.draws[0][0, 0]
        intervals = {
            "expanded percentile": (estimate.low, estimate.high),
            "percentile": tuple(np.quantile(draws, [0.025, 0.975])),
            "BCa": tuple(np.quantile(draws, _bca(gold, values[0], estimate.value, draws))),
        }
        for name, (low, high) in intervals.items():
            held[name] += low <= true <= high
            width[name] += high - low
    return {
        "pairs": pairs,
        "true Spearman": round(true, 4),
        "repetitions": repetitions,
        "coverage": {name: count / repetitions for name, count in held.items()},
        "mean width": {name: round(total / repetitions, 4) for name, total in width.items()},
    }


def _bca(gold: Floats, values: Floats, estimate: float, draws: Floats) -> NDArray[np.float64]:
    """Which quantiles the bias-corrected and accelerated interval takes (Efron 1987)."""
    without = weighted_spearman(
        Ranking.of(gold), [Ranking.of(values.astype(np.float32))], 1 - np.eye(len(gold), dtype=np.float32)
    )[0]
    deviations = without.mean() - without
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    shift = norm.ppf(np.clip((draws < estimate).mean(), 1e-3, 1 - 1e-3))
    ends = shift + norm.ppf([0.025, 0.975])
    return np.asarray(norm.cdf(shift + ends / (1 - acceleration * ends)))


SETTINGS: Sequence[tuple[str, Callable[[np.random.Generator], Data], Scheme, str]] = (
    ("STS, 300 pairs, 5 methods against a baseline", sts(300, 6), "items", "5 %"),
    ("STS, 100 pairs, 1 method", sts(100, 2), "items", "5 %"),
    ("STS, 300 pairs, nearly equal methods", sts(300, 2, noise=0.02), "items", "5 %"),
    ("retrieval, 50 queries, 5 methods", retrieval(50, 6), "items", "5 %"),
    ("retrieval, 300 queries, 5 methods", retrieval(300, 6), "items", "5 %"),
    ("average of 3 tasks, 3 methods", three_tasks, "items", "5 %"),
    ("STS, 100 groups of 4 pairs", groups, "items", "more: pairs are not independent"),
    ("STS, 100 groups of 4 pairs", groups, "clusters", "5 %"),
    ("STS, all pairs of 50 documents", documents, "items", "more: pairs are not independent"),
    ("STS, all pairs of 50 documents", documents, "clusters", "5 % or less"),
    ("STS, 400 pairs of 250 texts", sparse, "clusters", "5 % or less"),
    ("3 matched seeds", seeds(3, True), "items", "5 % or less"),
    ("5 matched seeds", seeds(5, True), "items", "5 % or less"),
    ("3 seeds that shift all items, against no seed", shifts, "items", "5 %"),
    ("5 seeds each, not matched", seeds(5, False), "items", "5 % or less"),
)


def markdown(rates: Sequence[Rate], covered: Sequence[dict[str, object]], resamples: int) -> str:
    """The tables for people."""
    low, high = rates[0].low, rates[0].high
    lines = [
        "# False positives",
        "",
        "Made by `scripts/false_positive_rate.py`. Different methods of equal true score, tested at 5 %; "
        f"{rates[0].repetitions} repetitions of {resamples} resamples. A true rate of 5 % gives "
        f"{100 * low:.1f} % to {100 * high:.1f} % in 95 % of such counts.",
        "",
        "| setting | resampled | rejected, of all comparisons | any of the family, max-T | expected |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in rates:
        family = "" if one.family_wise is None else f"{100 * one.family_wise:.1f} %"
        lines.append(f"| {one.setting} | {one.scheme} | {100 * one.rejected:.1f} % | {family} | {one.expected} |")
    lines += ["", "# Coverage of 95 % intervals of one Spearman correlation", ""]
    lines += ["| pairs | interval | holds the true score | mean width |", "| --- | --- | --- | --- |"]
    for setting in covered:
        coverages, widths = setting["coverage"], setting["mean width"]
        assert isinstance(coverages, dict)
        assert isinstance(widths, dict)
        lines += [
            f"| {setting['pairs']} | {name} | {100 * share:.1f} % | {widths[name]:.4f} |"
            for name, share in coverages.items()
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures every setting and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/statistics"))
    flags = parser.parse_args()
    rates = []
    for name, make, scheme, expected in SETTINGS:
        started = time.monotonic()
        rates.append(rate(name, make, scheme, flags.repetitions, flags.resamples, expected))
        family = rates[-1].family_wise
        print(
            f"{name}, {scheme}: {rates[-1].rejected:.4f}, family {family}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    covered = [coverage(pairs, flags.repetitions, flags.resamples) for pairs in (50, 300)]
    held = {
        "repetitions": flags.repetitions,
        "resamples": flags.resamples,
        "rates": [asdict(one) for one in rates],
        "coverage": covered,
    }
    atomic_write(flags.out / "false_positive_rate.json", json.dumps(held, indent=1, allow_nan=False) + "\n")
    text = markdown(rates, covered, flags.resamples)
    atomic_write(flags.out / "false_positive_rate.md", text)
    print(text)


if __name__ == "__main__":
    main()

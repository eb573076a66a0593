from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, spearmanr, t, ttest_rel

from fusebench.benchmarks.clusters import Clusters, independent
from fusebench.benchmarks.comparison import Contender, averages
from fusebench.benchmarks.resampling import PartEvidence, TaskEvidence, resample
from fusebench.errors import InputError


def task(values, gold=None, name="T", clusters=None, kind="Retrieval"):
    values = np.asarray(values, dtype=np.float32)
    part = PartEvidence(values, gold, clusters or independent(values.shape[1]))
    return TaskEvidence(name, "STS" if gold is not None else kind, (part,))


def plain(count):
    return [Contender(f"method {k}", (None,)) for k in range(count)]


ONE = np.ones(1)


def test_scores_are_spearman_or_the_mean_and_tasks_are_means_over_parts():
    random = np.random.default_rng(0)
    gold = [random.integers(0, 5, 30).astype(float), random.random(20)]
    values = [random.random((2, 30)).astype(np.float32), random.random((2, 20)).astype(np.float32)]
    parts = tuple(PartEvidence(v, g, independent(len(g))) for v, g in zip(values, gold, strict=True))
    found = resample(plain(2), [TaskEvidence("T", "STS", parts)], "items", resamples=20)
    for row in range(2):
        expected = np.mean([spearmanr(g, v[row])[0] for v, g in zip(values, gold, strict=True)])
        assert found.observed[row][0, 0] == pytest.approx(expected, abs=1e-9)
    means = resample(plain(2), [task(values[0])], "items", resamples=20)
    assert means.observed[1][0, 0] == pytest.approx(values[0][1].mean(), abs=1e-6)


def test_a_paired_mean_gives_students_p_interval_and_cohens_d():
    random = np.random.default_rng(1)
    values = random.random((2, 60))
    values[0] += 0.1
    values[1] += values[0]  # correlated, as methods are
    found = resample(plain(2), [task(values)], "items", resamples=20_000)
    (difference,) = found.differences([(0, 1)], ONE)
    single = values[0] - values[1]
    expected = ttest_rel(values[0], values[1])
    assert difference.estimate.value == pytest.approx(single.mean(), abs=1e-6)
    assert difference.estimate.error == pytest.approx(single.std(ddof=1) / np.sqrt(60), rel=0.03)
    low, high = expected.confidence_interval(0.95)
    assert (difference.estimate.low, difference.estimate.high) == pytest.approx((low, high), abs=0.01)
    assert difference.effect == pytest.approx(single.mean() / single.std(ddof=1), rel=0.03)
    assert [degrees for _, degrees in difference.estimate.variances] == [59]


def test_the_pairing_is_used():
    random = np.random.default_rng(2)
    shared = random.random(200)
    values = np.stack([shared + 0.01, shared])
    found = resample(plain(2), [task(values + random.normal(0, 0.001, (2, 200)))], "items", resamples=500)
    (difference,) = found.differences([(0, 1)], ONE)
    assert difference.p == 1 / 501
    alone = [found.estimate(k, ONE) for k in range(2)]
    assert alone[0].low < alone[1].high, "the two intervals overlap all the same"


def test_averages_are_means_of_types_and_then_of_those_means():
    types = {"A": "STS", "B": "STS", "C": "Retrieval"}
    found = averages(types)
    assert {name: weights.tolist() for name, weights in found.items()} == {
        "STS avg": [0.5, 0.5, 0],
        "overall": [0.25, 0.25, 0.5],
    }
    assert averages({"A": "STS"}) == {}


def test_an_average_resamples_each_task_by_itself():
    random = np.random.default_rng(3)
    tasks = [task(random.random((2, 80)), name=name) for name in ("A", "B")]
    found = resample(plain(2), tasks, "items", resamples=20_000)
    separate = [found.estimate(0, np.eye(2)[k], 1).error for k in range(2)]
    together = found.estimate(0, np.full(2, 0.5), 1)
    assert together.error == pytest.approx(np.hypot(*separate) / 2, rel=0.03)
    one = found.estimate(0, np.asarray([1.0, 0.0]), 1).value
    other = found.estimate(0, np.asarray([0.0, 1.0]), 1).value
    assert together.value == pytest.approx((one + other) / 2)


def test_noise_between_seeds_enters_the_error_and_its_degrees_of_freedom():
    random = np.random.default_rng(4)
    items = random.random(2000)
    # three seeds that shift all items alike: the error of the mean is that of three numbers
    shifts = np.asarray([0.0, 0.2, 0.7])
    values = np.stack([*(items + shift for shift in shifts), items])
    contenders = [Contender("trained", (0, 1, 2)), Contender("mean", (None,))]
    found = resample(contenders, [task(values)], "items", resamples=20_000)
    estimate = found.estimate(0, ONE, 1)
    assert estimate.value == pytest.approx(shifts.mean(), abs=1e-6)
    assert estimate.error == pytest.approx(shifts.std(ddof=1) / np.sqrt(3), rel=0.03)
    (_, of_items), (of_seeds, degrees) = estimate.variances
    assert (of_items, degrees) == (1999, 2)
    assert of_seeds == pytest.approx(shifts.var(ddof=1) / 3, rel=1e-4)


def test_matched_seeds_cancel_and_others_add_up():
    random = np.random.default_rng(5)
    items, shifts = random.random(500), np.asarray([0.0, 0.3, 0.5, 0.9])
    values = np.concatenate([items + shifts[:, None], items + shifts[:, None] + 0.01])
    errors = {}
    for name, second in (("matched", (0, 1, 2, 3)), ("others", (4, 5, 6, 7))):
        contenders = [Contender("a", (0, 1, 2, 3)), Contender("b", second)]
        found = resample(contenders, [task(values)], "items", resamples=5000)
        errors[name] = found.estimate(0, ONE, 1).error
    assert errors["matched"] < 1e-6
    assert errors["others"] == pytest.approx(np.sqrt(2) * shifts.std(ddof=1) / 2, rel=0.05)


def test_items_that_come_in_clusters_have_the_error_of_the_clusters():
    random = np.random.default_rng(6)
    group = np.repeat(np.arange(60), 10)
    values = np.stack([random.standard_normal(60)[group], np.zeros(600)])
    clusters = Clusters("groups", group, group, 60)
    by = {
        scheme: resample(plain(2), [task(values, clusters=clusters)], scheme, resamples=5000).estimate(0, ONE, 1)
        for scheme in ("items", "clusters")
    }
    expected = values[0][::10].std(ddof=1) / np.sqrt(60)
    assert by["clusters"].error == pytest.approx(expected, rel=0.05)
    assert by["clusters"].variances[0][1] == 59
    assert by["items"].error == pytest.approx(expected / np.sqrt(10), rel=0.1)


def test_the_family_is_everyone_against_the_baseline_and_the_matrix_everyone_against_everyone():
    random = np.random.default_rng(7)
    values = random.random((4, 300)) + np.asarray([0, 0, 0.5, 0])[:, None]
    found = resample(plain(4), [task(values)], "items", resamples=2000)
    family = found.against(1, ONE)
    assert [(d.one, d.other) for d in family] == [(0, 1), (2, 1), (3, 1)]
    assert [d.adjusted < 0.05 for d in family] == [False, True, False]
    assert all(d.adjusted >= d.p for d in family)
    pairs = found.every_pair(ONE)
    assert len(pairs) == 6
    assert all(d.adjusted >= d.p for d in pairs)
    assert [set(group) for group in found.groups(ONE)] == [{2}, {0, 1, 3}]


def test_everything_is_the_same_whatever_the_number_of_threads():
    random = np.random.default_rng(8)
    gold = random.random(100)
    tasks = [task(random.random((3, 100)), gold=gold), task(random.random((3, 50)), name="R")]
    contenders = [Contender("a", (0, 1)), Contender("b", (None,))]
    found = [resample(contenders, tasks, "items", resamples=300, threads=threads) for threads in (1, 4)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*(one.draws for one in found), strict=True))
    assert found[0].against(1, np.full(2, 0.5)) == found[1].against(1, np.full(2, 0.5))


def test_too_few_items_are_refused_by_name():
    with pytest.raises(InputError, match="Tiny: a resample holds only ties"):
        resample(plain(1), [task([[1, 2, 3]], gold=np.asarray([1.0, 2.0, 2.0]), name="Tiny")], "items", resamples=200)


def binomial_bounds(repetitions, chance=0.05, outside=1e-3):
    return binom.ppf(outside / 2, repetitions, chance), binom.isf(outside / 2, repetitions, chance)


def test_methods_of_equal_true_score_are_told_apart_one_time_in_twenty():
    """Equal noise on one method's similarities makes different methods with the same true score."""
    random, repetitions = np.random.default_rng(9), 300
    rejected = family_wise = 0
    for repetition in range(repetitions):
        similarity = random.standard_normal(200)
        gold = np.round(similarity + random.standard_normal(200))
        values = similarity + 0.3 * random.standard_normal((4, 200))
        found = resample(plain(4), [task(values, gold=gold)], "items", resamples=256, seed=repetition, threads=1)
        family = found.against(0, ONE)
        rejected += family[0].p < 0.05
        family_wise += any(difference.adjusted < 0.05 for difference in family)
    low, high = binomial_bounds(repetitions)
    assert low <= rejected <= high
    assert family_wise <= high


def test_swapped_labels_are_told_apart_one_time_in_twenty():
    """Query by query, which method gets which of two scores is a coin's choice."""
    random, repetitions = np.random.default_rng(10), 400
    rejected = 0
    for repetition in range(repetitions):
        values = np.round(random.beta(0.5, 0.5, (2, 50)), 1)
        swap = random.random(50) < 0.5
        values = np.where(swap, values[::-1], values)
        found = resample(plain(2), [task(values)], "items", resamples=256, seed=repetition, threads=1)
        rejected += found.against(0, ONE)[0].p < 0.05
    low, high = binomial_bounds(repetitions)
    assert low <= rejected <= high


def test_few_matched_seeds_do_not_raise_the_false_alarms():
    random, repetitions = np.random.default_rng(11), 300
    rejected = 0
    for repetition in range(repetitions):
        items = random.random(40)
        noise = random.normal(0, 0.1, (3, 1)) + random.normal(0, 0.2, (3, 40))
        values = np.concatenate([items + noise, items[None]])
        contenders = [Contender("trained", (0, 1, 2)), Contender("mean", (None,))]
        found = resample(contenders, [task(values)], "items", resamples=256, seed=repetition, threads=1)
        rejected += found.against(1, ONE)[0].p < 0.05
    assert rejected <= binomial_bounds(repetitions)[1]


def test_the_interval_of_one_mean_is_students():
    values = np.random.default_rng(12).random((1, 25))
    estimate = resample(plain(1), [task(values)], "items", resamples=20_000).estimate(0, ONE)
    error = values.std(ddof=1) / 5
    expected = t.interval(0.95, 24, loc=values.mean(), scale=error)
    assert (estimate.low, estimate.high) == pytest.approx(expected, abs=0.1 * error)


def test_the_jackknife_leaves_out_one_unit_at_a_time():
    random = np.random.default_rng(13)
    gold, values = random.random(20), random.random((2, 20)).astype(np.float32)
    found = resample(plain(2), [task(values, gold=gold)], "items", resamples=100)
    for row in range(2):
        without = np.asarray(
            [spearmanr(np.delete(gold, item), np.delete(values[row], item))[0] for item in range(20)]
        )
        expected = (without - without.mean()) * np.sqrt(19 / 20)
        assert found.jackknife[0][row] == pytest.approx(expected, abs=1e-9)


def test_the_error_of_a_mean_needs_no_correction_for_pairs():
    values = np.random.default_rng(14).random((2, 80))
    estimate = resample(plain(2), [task(values)], "items", resamples=20_000).estimate(0, ONE, 1)
    expected = (values[0] - values[1]).std(ddof=1) / np.sqrt(80)
    assert estimate.error == pytest.approx(expected, rel=0.03)


def true_error(make, repetitions=400):
    """Spread of the observed difference over new data, and the mean of its estimated variance."""
    differences, variances = [], []
    for repetition in range(repetitions):
        evidence = make(np.random.default_rng(repetition))
        scheme = "items" if evidence.parts[0].clusters.kind == "items" else "clusters"
        found = resample(plain(2), [evidence], scheme, resamples=128, seed=repetition, threads=1)
        estimate = found.estimate(0, ONE, 1)
        differences.append(estimate.value)
        variances.append(estimate.error**2)
    return float(np.std(differences)), float(np.sqrt(np.mean(variances)))


def test_the_error_between_nearly_equal_rankings_is_the_true_one():
    """Plain resampling counts the variance of swapped neighbours three times: its error would be 1.4 times this."""

    def make(random):
        similarity = random.standard_normal(150)
        gold = np.round(similarity + 0.6 * random.standard_normal(150))
        return task(similarity + 0.02 * random.standard_normal((2, 150)), gold=gold)

    spread, estimated = true_error(make)
    assert estimated == pytest.approx(spread, rel=0.15)


def test_the_error_over_texts_is_the_true_one_where_few_pairs_share_a_text():
    """Drawing both texts of a pair counts the pair's own variance three times."""

    def make(random):
        ends = random.permutation(np.repeat(np.arange(60), 3)).reshape(2, 90)
        clusters = Clusters("nodes", ends[0], np.where(ends[0] == ends[1], (ends[1] + 1) % 60, ends[1]), 60)
        return task(random.standard_normal((2, 90)), clusters=clusters)

    spread, estimated = true_error(make)
    assert estimated == pytest.approx(spread, rel=0.15)

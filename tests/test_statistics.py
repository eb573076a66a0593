from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import false_discovery_control, norm, t, ttest_1samp

from fusebench.benchmarks.statistics import (
    benjamini_hochberg,
    covering,
    critical,
    indistinguishable_groups,
    interval,
    letters,
    max_t,
    normal_equivalent,
    p_text,
    share_text,
    smallest_detectable,
    standard_error,
)


def normal_draws(means, errors, resamples=40_000, seed=0):
    """Resampled differences as they are of many items."""
    random = np.random.default_rng(seed)
    return np.asarray(means)[:, None] + np.asarray(errors)[:, None] * random.standard_normal((len(means), resamples))


@pytest.mark.parametrize("degrees", [4, 29, 10_000])
def test_the_interval_of_a_normal_mean_is_students(degrees):
    (draws,) = normal_draws([0.3], [0.1])
    low, high = interval(0.3, draws, [(1.0, degrees)])
    expected = t.interval(0.95, degrees, loc=0.3, scale=0.1)
    assert (low, high) == pytest.approx(expected, abs=0.01 * t.isf(0.025, degrees) / 1.96)


def test_the_interval_keeps_the_skew_of_the_resamples():
    draws = 0.9 - np.random.default_rng(0).exponential(0.1, 10_000)
    low, high = interval(0.9, draws, [(1.0, 1000)])
    assert 0.9 - low > 10 * (high - 0.9)
    stretch = t.isf(0.025, 1000) / norm.isf(0.025)
    assert low == pytest.approx(0.9 - stretch * (0.9 - np.quantile(draws, 0.025)))


def test_the_single_p_value_is_that_of_the_paired_t_test():
    random = np.random.default_rng(1)
    for count in (8, 40):
        differences = random.standard_normal(count) + 0.4
        error = differences.std(ddof=1) / np.sqrt(count)
        draws = normal_draws([differences.mean()], [error])
        single, adjusted = max_t(np.asarray([differences.mean()]), draws, [[(1.0, count - 1.0)]])
        expected = ttest_1samp(differences, 0).pvalue
        assert single[0] == adjusted[0] == pytest.approx(expected, abs=4 * np.sqrt(expected / 40_000) + 1e-4)


def test_independent_hypotheses_are_adjusted_as_sidak_says():
    values = np.asarray([2.0, 2.5, 0.3, 3.0])
    single, adjusted = max_t(values, normal_draws(values, [1] * 4), [[]] * 4)
    assert adjusted == pytest.approx(1 - (1 - single) ** 4, abs=0.01)


def test_copies_of_one_hypothesis_cost_nothing():
    draws = np.repeat(normal_draws([2.0], [1.0]), 5, axis=0)
    single, adjusted = max_t(np.full(5, 2.0), draws, [[]] * 5)
    assert adjusted.tolist() == single.tolist()


def test_p_values_are_counts_of_a_slow_loop():
    random = np.random.default_rng(2)
    values, draws = random.standard_normal(3), random.standard_normal((3, 200)) * [[1], [2], [0.5]]
    single, adjusted = max_t(values, draws, [[]] * 3)
    errors, means = [row.std(ddof=1) for row in draws], draws.mean(axis=1)
    for k in range(3):
        observed = abs(values[k]) / errors[k]
        own = sum(abs(draws[k, b] - means[k]) / errors[k] >= observed for b in range(200))
        worst = sum(max(abs(draws[j, b] - means[j]) / errors[j] for j in range(3)) >= observed for b in range(200))
        assert single[k] == (own + 1) / 201
        assert adjusted[k] == (worst + 1) / 201


def test_equal_methods_have_p_one_and_no_p_is_zero():
    draws = np.concatenate([np.zeros((1, 99)), normal_draws([50.0], [1.0], 99)])
    single, adjusted = max_t(np.asarray([0.0, 50.0]), draws, [[(1.0, 9.0)], [(1.0, 500.0)]])
    assert single.tolist() == adjusted.tolist() == [1.0, 1 / 100]
    assert p_text(1 / 100, 99) == "<1/99"
    assert p_text(2 / 10_001, 10_000) == "0.0002"
    assert p_text(1 / 10_001, 10_000) == "<1/10000"
    assert p_text(0.5, 10_000) == "0.50"
    assert share_text(0.00014, 1 / 10_001, 10_000) == "<0.0002"
    assert share_text(0.03, 0.01, 10_000) == "0.0300"


def test_benjamini_hochberg_is_scipys():
    p = np.random.default_rng(3).random(50) ** 3
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p), abs=1e-15)


def test_critical_ratios_are_cochrans():
    assert critical(0.025, [(2.0, 9.0)]) == pytest.approx(t.isf(0.025, 9))
    assert critical(0.025, [(0.0, 1.0), (2.0, 9.0)]) == pytest.approx(t.isf(0.025, 9))
    assert critical(0.025, []) == pytest.approx(norm.isf(0.025))
    expected = (3 * t.isf(0.025, 100) + t.isf(0.025, 2)) / 4
    assert critical(0.025, [(3.0, 100.0), (1.0, 2.0)]) == pytest.approx(expected)


@pytest.mark.parametrize("variances", [[], [(1.0, 1.0)], [(1.0, 5.0)], [(3.0, 100.0), (1.0, 2.0)]])
def test_the_normal_equivalent_has_the_tail_of_the_ratio(variances):
    for tail in (0.4, 0.025, 1e-6):
        assert normal_equivalent(critical(tail, variances), variances) == pytest.approx(norm.isf(tail), rel=1e-6)
    assert normal_equivalent(0.0, variances) == 0
    assert normal_equivalent(np.inf, variances) == np.inf
    assert normal_equivalent(1e9, [(1.0, 10_000.0)]) == 37


def test_a_difference_of_the_smallest_detectable_size_is_found_four_times_in_five():
    random = np.random.default_rng(4)
    size = smallest_detectable(1 / np.sqrt(30), [(1.0, 29.0)])
    samples = size + random.standard_normal((20_000, 30))
    found = (ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.015)


def test_the_standard_error_is_the_spread_of_the_resamples():
    draws = np.random.default_rng(0).random((2, 3, 50))
    assert standard_error(draws)[1, 2] == pytest.approx(draws[1, 2].std(ddof=1))


def cliques(different):
    """Maximal sets without two that differ, by trying every set."""
    count = len(different)
    alike = [
        set(members)
        for size in range(1, count + 1)
        for members in itertools.combinations(range(count), size)
        if not any(different[i, j] for i, j in itertools.combinations(members, 2))
    ]
    return sorted(tuple(sorted(one)) for one in alike if not any(one < other for other in alike))


@pytest.mark.parametrize("seed", range(12))
def test_groups_are_all_maximal_sets_of_methods_that_are_not_told_apart(seed):
    upper = np.triu(np.random.default_rng(seed).random((7, 7)) < (seed + 1) / 14, 1)
    different = upper | upper.T
    assert indistinguishable_groups(different) == cliques(different)


def test_methods_share_a_letter_exactly_if_they_are_not_told_apart():
    # a - b and b - c are not told apart, a - c are
    different = np.zeros((3, 3), dtype=bool)
    different[0, 2] = different[2, 0] = True
    groups = indistinguishable_groups(different)
    assert groups == [(0, 1), (1, 2)]
    assert letters(groups, 3) == ["a", "ab", "b"]
    assert letters(indistinguishable_groups(np.zeros((4, 4), dtype=bool)), 4) == ["a"] * 4
    assert letters([(k,) for k in range(28)], 28)[25:] == ["z", "aa", "ab"]


@pytest.mark.parametrize("seed", range(12))
def test_the_covering_groups_say_of_every_pair_what_all_groups_say(seed):
    upper = np.triu(np.random.default_rng(seed).random((9, 9)) < (seed + 1) / 14, 1)
    groups = indistinguishable_groups(upper | upper.T)
    chosen = covering(groups)
    assert set(chosen) <= set(groups)
    for one, other in itertools.combinations_with_replacement(range(9), 2):
        assert any(one in group and other in group for group in chosen) == (not upper[one, other])


def test_a_group_that_tells_nothing_new_gets_no_letter():
    # every pair of the last group is in one of the first three
    groups = [(0, 1, 3), (0, 2, 4), (1, 2, 5), (0, 1, 2)]
    assert covering(groups) == groups[:3]


def test_three_letters_in_a_row_are_a_span():
    groups = [(0, 9 + k) for k in range(3)] + [(1, 20), (0, 21)]
    assert letters(groups, 22)[0] == "a-c e"
    assert letters(groups[:2], 22)[0] == "ab"

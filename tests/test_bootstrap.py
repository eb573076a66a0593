from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from fusebench.benchmarks.bootstrap import (
    BLOCK,
    Ranking,
    draw_counts,
    in_blocks,
    weighted_mean,
    weighted_spearman,
)
from fusebench.benchmarks.clusters import Clusters, independent, sentence_clusters


def written_out(values, weights):
    """Item i as often as its weight says."""
    return np.repeat(values, weights.astype(int))


@pytest.mark.parametrize("items", [12, 33, 200])
@pytest.mark.parametrize("levels", [3, 10_000])
def test_weighted_spearman_is_scipys_on_the_resample_written_out(items, levels):
    random = np.random.default_rng(items + levels)
    gold = random.integers(0, 6, items).astype(float)
    methods = [
        np.round(gold + random.standard_normal(items), 4),
        random.integers(0, levels, items),
        -gold,
    ]
    weights = draw_counts(items, 50, random)
    found = weighted_spearman(Ranking.of(gold), [Ranking.of(method) for method in methods], weights)
    for row, method in enumerate(methods):
        for column in range(50):
            expected = spearmanr(written_out(gold, weights[:, column]), written_out(method, weights[:, column]))[0]
            assert found[row, column] == pytest.approx(expected, abs=1e-12)


def test_weights_of_one_give_the_score_itself():
    random = np.random.default_rng(0)
    gold, method = random.integers(0, 5, 999), random.standard_normal(999)
    found = weighted_spearman(Ranking.of(gold), [Ranking.of(method)], np.ones((999, 1), dtype=np.float32))
    assert found[0, 0] == pytest.approx(spearmanr(gold, method)[0], abs=1e-13)


def test_a_resample_of_ties_alone_is_refused():
    with pytest.raises(ArithmeticError, match="only ties"):
        weighted_spearman(
            Ranking.of(np.asarray([1.0, 2.0, 3.0])),
            [Ranking.of(np.arange(3.0))],
            np.asarray([[3], [0], [0]], dtype=np.float32),
        )


def test_weighted_mean_is_the_mean_of_the_resample_written_out():
    random = np.random.default_rng(1)
    values, weights = random.random((3, 40)).astype(np.float32), draw_counts(40, 20, random)
    found = weighted_mean(values, weights)
    for row in range(3):
        for column in range(20):
            expected = written_out(values[row].astype(float), weights[:, column]).mean()
            assert found[row, column] == pytest.approx(expected, abs=1e-12)


def test_one_draw_fewer_than_units_makes_the_variance_of_a_mean_unbiased():
    random = np.random.default_rng(2)
    values = random.random((1, 5))
    resampled = weighted_mean(values, draw_counts(5, 200_000, random))
    assert resampled.var() == pytest.approx(values.var(ddof=1) / 5, rel=0.02)
    assert (draw_counts(5, 100, random).sum(axis=0) == 4).all()
    assert draw_counts(1, 3, random).tolist() == [[1, 1, 1]]


def test_the_result_does_not_depend_on_threads_nor_but_for_its_length_on_the_number_of_resamples():
    random = np.random.default_rng(3)
    gold, method = Ranking.of(random.random(50)), Ranking.of(random.random(50))

    def score(generator, count):
        return weighted_spearman(gold, [method], draw_counts(50, count, generator))

    found = {
        (count, threads): in_blocks(score, count, seed=7, stream="x", threads=threads)
        for count in (10, 3 * BLOCK + 5)
        for threads in (1, 2, 5)
    }
    for (count, threads), columns in found.items():
        assert columns.shape == (1, count)
        assert columns.tobytes() == found[count, 1].tobytes(), threads
    assert found[10, 1].tolist() == found[3 * BLOCK + 5, 1][:, :10].tolist()
    for seed, stream in ((8, "x"), (7, "y")):
        other = in_blocks(score, 10, seed=seed, stream=stream, threads=1)
        assert (other != found[10, 1]).any()


def test_pairs_without_a_common_text_are_independent():
    clusters = sentence_clusters(["a", "b", "c"], ["d", "e", "f"])
    assert (clusters.kind, clusters.units) == ("items", 3)


def test_connected_pairs_are_one_group():
    # a-b, b-c share "b" in other case and spacing; 60 further pairs stand alone
    first = ["a b", "B  c", *(f"left {i}" for i in range(60))]
    second = ["b C", "d", *(f"right {i}" for i in range(60))]
    clusters = sentence_clusters(first, second)
    assert (clusters.kind, clusters.units) == ("groups", 61)
    assert clusters.left.tolist() == [0, 0, *range(1, 61)]
    weights = clusters.weights(np.random.default_rng(0), 30)
    assert (weights[0] == weights[1]).all()
    assert (weights[1:].sum(axis=0) == 60).all()


def test_all_pairs_of_few_documents_are_drawn_by_document():
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    clusters = sentence_clusters([f"text {i}" for i, _ in pairs], [f"text {j}" for _, j in pairs])
    assert (clusters.kind, clusters.units) == ("nodes", 6)
    counts = draw_counts(6, 40, np.random.default_rng(5))
    weights = clusters.weights(np.random.default_rng(5), 40)
    # the number of a text is the order in which it is first met: all first texts, then the last one
    for row, (i, j) in enumerate(pairs):
        assert weights[row].tolist() == (counts[i] * counts[j]).tolist()


def test_a_text_paired_with_itself_counts_as_often_as_it_is_drawn():
    units = np.asarray([0, 1])
    clusters = Clusters("nodes", units, np.asarray([0, 0]), 2)
    counts = draw_counts(2, 20, np.random.default_rng(1))
    weights = clusters.weights(np.random.default_rng(1), 20)
    assert weights[0].tolist() == counts[0].tolist()
    assert weights[1].tolist() == (counts[0] * counts[1]).tolist()


def test_the_node_bootstrap_has_the_variance_of_a_mean_over_pairs_of_random_texts():
    # mean over all pairs of a_i + a_j is twice the mean of a: its variance is 4 s^2 / K
    random = np.random.default_rng(4)
    of_text = random.standard_normal(40)
    left, right = np.triu_indices(40, 1)
    clusters = Clusters("nodes", left, right, 40)
    values = (of_text[left] + of_text[right])[None]
    resampled = weighted_mean(values, clusters.weights(random, 20_000))
    assert resampled.std() == pytest.approx(2 * of_text.std(ddof=1) / np.sqrt(40), rel=0.05)
    by_items = weighted_mean(values, independent(len(left)).weights(random, 2000))
    assert by_items.std() < resampled.std() / 3

import numpy as np
import pytest

from fusebench.benchmarks import exact_search
from fusebench.benchmarks.exact_search import document_blocks, most_similar


def vectors(rows, seed, dim=8):
    """Small whole numbers: products are exact in any order, and many are equal."""
    return np.random.default_rng(seed).integers(-3, 4, (rows, dim)).astype(np.float32)


def dot(queries, documents):
    return (queries @ documents.T).astype(np.float32)


def in_blocks(numbers, rows, sizes):
    ends = np.cumsum(sizes)
    return [(numbers[end - size : end], rows[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def by_sorting(queries, documents, numbers, k):
    """Every pair, sorted by similarity and then by number, both falling."""
    found = []
    for row in dot(queries, documents):
        pairs = sorted(zip(row.tolist(), numbers.tolist(), strict=True), reverse=True)[:k]
        found.append(([number for _, number in pairs], [similarity for similarity, _ in pairs]))
    return [one for one, _ in found], [one for _, one in found]


@pytest.mark.parametrize("sizes", [[50], [1, 49], [20, 17, 13]])
@pytest.mark.parametrize("k", [1, 7, 50, 80])
def test_the_best_are_those_of_sorting_all_pairs_however_the_corpus_is_cut(monkeypatch, sizes, k):
    monkeypatch.setattr(exact_search, "_QUERIES", 2)
    queries, documents, numbers = vectors(5, 0), vectors(50, 1), np.random.default_rng(2).permutation(50)
    found, similarities = most_similar(queries, in_blocks(numbers, documents, sizes), k, dot)
    assert (found.tolist(), similarities.tolist()) == by_sorting(queries, documents, numbers, k)


def test_of_equal_documents_those_with_the_greater_numbers_are_found_also_across_blocks():
    documents = np.ones((6, 2), dtype=np.float32)
    numbers = np.array([3, 0, 5, 1, 4, 2])
    found, _ = most_similar(np.ones((1, 2), np.float32), in_blocks(numbers, documents, [2, 2, 2]), 3, dot)
    assert found.tolist() == [[5, 4, 3]]


def test_zero_has_one_sign_and_negative_similarities_rank_below():
    documents = np.array([[-0.0], [0.0], [-1.0], [-2.0], [1.0]], dtype=np.float32)
    found, similarities = most_similar(
        np.ones((1, 1), np.float32), [(np.arange(5), documents)], 5, lambda q, d: d.T.copy()
    )
    assert found.tolist() == [[4, 1, 0, 2, 3]]
    assert similarities.tolist() == [[1.0, 0.0, 0.0, -1.0, -2.0]]


@pytest.mark.parametrize(("documents", "queries"), [(0, 3), (1, 0), (145, 145), (5183, 300), (123_457, 5000)])
def test_blocks_cover_a_corpus_once_in_parts_of_about_equal_size(documents, queries):
    blocks = document_blocks(documents, queries)
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(documents))
    sizes = [block.stop - block.start for block in blocks]
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert all(size * min(queries, 1024) <= 1 << 22 for size in sizes)

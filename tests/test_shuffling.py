import numpy as np
import pytest

import fusebench.methods.shuffling as shuffling
from fusebench.methods.shuffling import STOP_WORDS, cluster_order, example_order, random_order, shingle_order

WORDS = "river bank loan water money tree leaf green note coin".split()  # noqa: SIM905


def rows(n=60, seed=0):
    """Whole numbers, so that distances are exact and many are equal; some texts repeat, with their vectors."""
    generator = np.random.default_rng(seed)
    vectors = generator.integers(-2, 3, size=(n, 3)).astype(np.float32)
    texts = [" ".join(generator.choice(WORDS, size=3)) for _ in range(n)]
    for copy, original in ((10, 3), (20, 3), (30, 7), (31, 7)):
        vectors[copy], texts[copy] = vectors[original], texts[original]
    return vectors, texts


def slow_example_order(vectors, texts, *, group_size, top_k, allow_same, seed):
    """The published procedure, one distance at a time."""
    used, emitted = set(), []
    for i in np.random.default_rng(seed).permutation(len(texts)).tolist():
        if i in used:
            continue
        used.add(i)
        emitted.append(i)
        group = {texts[i]}
        near = sorted(range(len(texts)), key=lambda j: (sum((vectors[i] - vectors[j]) ** 2), j))[:top_k]
        for j in near:
            if len(group) >= group_size:
                break
            if j in used or (not allow_same and texts[j] in group):
                continue
            used.add(j)
            emitted.append(j)
            group.add(texts[j])
    return emitted[::-1]


@pytest.mark.parametrize("allow_same", [True, False])
@pytest.mark.parametrize(("group_size", "top_k"), [(4, 200), (7, 10), (1, 5), (3, 1), (100, 200)])
@pytest.mark.parametrize("cells", [60, 2**22], ids=["a row at a time", "all at once"])
def test_example_order_equals_the_slow_procedure(monkeypatch, cells, group_size, top_k, allow_same):
    monkeypatch.setattr(shuffling, "_CELLS", cells)
    vectors, texts = rows()
    settings = {"group_size": group_size, "top_k": top_k, "allow_same": allow_same, "seed": 5}
    assert example_order(vectors, texts, **settings).tolist() == slow_example_order(vectors, texts, **settings)


@pytest.mark.parametrize("scale", [3.0, 1e-30, 1e30])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_neighbours_are_exact_for_vectors_of_any_size_and_far_from_the_origin(scale, offset):
    vectors, texts = rows()
    vectors = scale * (vectors.astype(np.float64) + offset)
    settings = {"group_size": 4, "top_k": 10, "allow_same": True, "seed": 5}
    assert example_order(vectors, texts, **settings).tolist() == slow_example_order(vectors, texts, **settings)


def test_neighbours_stand_together_and_leftovers_come_first():
    """Four tight clusters of four and one outlier: every group of four is a cluster."""
    centres = np.repeat(np.eye(4) * 100, 4, axis=0)
    vectors = np.concatenate([centres + np.random.default_rng(0).normal(size=centres.shape), [[-500.0] * 4]])
    order = example_order(vectors, [str(i) for i in range(17)], group_size=4, top_k=4, seed=1).tolist()
    order.remove(16)
    assert [len({row // 4 for row in order[at : at + 4]}) for at in range(0, 16, 4)] == [1, 1, 1, 1]


def test_rows_with_a_text_of_the_group_join_only_if_allowed():
    vectors = np.array([[0.0], [0.0], [1.0], [2.0]])
    texts = ["a", "a", "b", "c"]
    together = example_order(vectors, texts, group_size=4, allow_same=True, seed=0).tolist()
    apart = example_order(vectors, texts, group_size=4, allow_same=False, seed=0).tolist()
    assert sorted(together) == sorted(apart) == [0, 1, 2, 3]
    assert apart[0] in (0, 1)  # the copy that could not join is a leftover, and leftovers come first
    assert len({texts[row] for row in apart[1:]}) == 3


def orders(seed):
    vectors, texts = rows()
    return {
        "random": random_order(60, seed=seed),
        "example": example_order(vectors, texts, group_size=4, top_k=20, allow_same=True, seed=seed),
        "shingle": shingle_order(texts, group_size=4, seed=seed),
        "pair of words": shingle_order(texts, shingle_size=2, group_size=4, seed=seed),
        "cluster": cluster_order(vectors, clusters=5, group_size=4, seed=seed),
    }


@pytest.mark.parametrize("kind", orders(0))
def test_every_row_comes_once_and_the_seed_decides(kind):
    once, again, other = orders(3)[kind], orders(3)[kind], orders(4)[kind]
    assert sorted(once.tolist()) == list(range(60))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize("n", [0, 1])
def test_tiny_sets_are_orders_too(n):
    vectors, texts = np.zeros((n, 3)), ["one"] * n
    for order in (
        random_order(n, seed=0),
        example_order(vectors, texts, seed=0),
        shingle_order(texts, group_size=2, seed=0),
        cluster_order(vectors, seed=0),
    ):
        assert order.tolist() == list(range(n))


def runs(order, keys):
    """Lengths of the stretches of equal keys."""
    found, last = [], None
    for row in order.tolist():
        if keys[row] != last:
            found.append(0)
        found[-1] += 1
        last = keys[row]
    return found


def test_rows_with_one_word_stand_together_in_groups():
    keys = [WORDS[i % 3] for i in range(30)]
    texts = [f"The {key.upper()}, the {'and' if i % 2 else 'of'}" for i, key in enumerate(keys)]
    lengths = runs(shingle_order(texts, group_size=5, seed=0), keys)
    assert all(length % 5 == 0 for length in lengths)  # two groups of one word may meet
    assert sum(lengths) == 30


def test_words_of_a_shingle_are_sorted():
    keys = ["money"] * 6 + ["tree"] * 6
    texts = ["money bank", "bank money"] * 3 + ["tree leaf", "leaf tree"] * 3
    assert all(length % 3 == 0 for length in runs(shingle_order(texts, shingle_size=2, group_size=3, seed=0), keys))


def test_stop_words_count_only_where_nothing_else_stands():
    assert "the" in STOP_WORDS
    keys = ["stop"] * 4 + ["bank"] * 4
    texts = ["The the!"] * 4 + ["the bank"] * 4
    assert set(runs(shingle_order(texts, group_size=4, seed=0), keys)) == {4}


def test_a_cluster_stands_together_in_groups():
    keys = [i % 3 for i in range(30)]
    vectors = np.array([[100.0 * key, float(i % 2)] for i, key in enumerate(keys)])
    lengths = runs(cluster_order(vectors, clusters=3, group_size=5, seed=0), keys)
    assert all(length % 5 == 0 for length in lengths)


@pytest.mark.filterwarnings("error")
def test_there_are_never_more_clusters_than_distinct_vectors():
    vectors = np.array([[0.0], [0.0], [1.0], [1.0]])
    assert sorted(cluster_order(vectors, clusters=100, group_size=2, seed=0).tolist()) == [0, 1, 2, 3]


def test_impossible_requests_raise():
    vectors, texts = rows()
    with pytest.raises(ValueError, match="60 embeddings for 59 texts"):
        example_order(vectors, texts[:-1], seed=0)
    with pytest.raises(ValueError, match="not finite"):
        example_order(np.full((60, 3), np.nan), texts, seed=0)
    for impossible in (
        lambda: example_order(vectors, texts, top_k=0, seed=0),
        lambda: example_order(vectors, texts, group_size=0, seed=0),
        lambda: shingle_order(texts, group_size=0, seed=0),
        lambda: shingle_order(texts, shingle_size=0, group_size=2, seed=0),
        lambda: cluster_order(vectors, clusters=0, seed=0),
    ):
        with pytest.raises(ValueError, match="must be at least 1"):
            impossible()

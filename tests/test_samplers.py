"""Samplers give the orders of `shuffling` under a seed of their own for each epoch."""

import numpy as np
import pytest

import fusebench.methods  # noqa: F401  registers the parts
from fusebench.errors import InputError
from fusebench.methods.grammar import parse
from fusebench.methods.registry import card, cards
from fusebench.methods.samplers import epoch_seed
from fusebench.methods.shuffling import cluster_order, example_order, shingle_order

WORDS = "river bank loan water money tree leaf green note coin".split()  # noqa: SIM905
RANDOM = [one.name for one in cards("sampler") if one.name != "file-order"]


def rows(n=60):
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, size=3)) for _ in range(n)]
    return texts, generator.normal(size=(n, 4)).astype(np.float32)


def sampler(sentence):
    return parse(f"mean+batch-softmax+{sentence}").build_sampler()


def order(sentence, epoch, seed=3):
    texts, embeddings = rows()
    part = sampler(sentence)
    return part.order(epoch, texts, embeddings if part.wants_embeddings(epoch) else None, seed=seed).tolist()


def test_file_order_is_the_file_s_in_every_epoch():
    assert [order("file-order", epoch, seed) for epoch in (0, 5) for seed in (0, 1)] == [list(range(60))] * 4


def test_example_shuffling_starts_in_file_order_or_at_random_and_then_groups_neighbours():
    texts, embeddings = rows()
    assert order("example-shuffling", 0) == list(range(60))
    assert order("example-shuffling(first_epoch=random)", 0) != list(range(60))
    expected = example_order(embeddings, texts, group_size=4, top_k=20, allow_same=True, seed=epoch_seed(3, 2))
    assert order("example-shuffling(group_size=4,top_k=20,allow_same=true)", 2) == expected.tolist()
    default = example_order(embeddings, texts, group_size=7, top_k=200, allow_same=False, seed=epoch_seed(3, 1))
    assert order("example-shuffling", 1) == order("example-shuffling(first_epoch=random)", 1) == default.tolist()


@pytest.mark.parametrize("epoch", [0, 2])
def test_shingle_and_cluster_shuffling_group_in_every_epoch(epoch):
    texts, embeddings = rows()
    seed = epoch_seed(3, epoch)
    shingles = shingle_order(texts, shingle_size=2, group_size=5, seed=seed)
    assert order("shingle-shuffling(shingle_size=2,group_size=5)", epoch) == shingles.tolist()
    clusters = cluster_order(embeddings, clusters=6, group_size=4, seed=seed)
    assert order("cluster-shuffling(clusters=6,group_size=4)", epoch) == clusters.tolist()


@pytest.mark.parametrize(
    ("name", "wants"),
    [
        ("file-order", [False, False, False]),
        ("example-shuffling", [False, True, True]),
        ("shingle-shuffling", [False, False, False]),
        ("cluster-shuffling", [True, True, True]),
    ],
)
def test_embeddings_are_asked_for_only_where_they_are_read(name, wants):
    assert [sampler(name).wants_embeddings(epoch) for epoch in range(3)] == wants


@pytest.mark.parametrize("name", RANDOM)
def test_every_seed_and_epoch_has_an_order_of_its_own(name):
    orders = {tuple(order(name, epoch, seed)) for epoch in (1, 2, 3) for seed in (0, 1, 2)}
    assert len(orders) == 9


def test_seeds_of_epochs_never_meet_those_of_other_runs():
    seeds = {epoch_seed(seed, epoch) for seed in range(50) for epoch in range(20)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(("name", "epoch"), [("example-shuffling", 1), ("cluster-shuffling", 0)])
def test_missing_embeddings_raise(name, epoch):
    texts, _ = rows()
    with pytest.raises(ValueError, match=f"{name} orders rows by the embeddings"):
        sampler(name).order(epoch, texts, None, seed=0)


@pytest.mark.parametrize("one", [(one.name, key) for one in cards("sampler") for key in one.defaults], ids=str)
def test_sizes_below_one_are_refused(one):
    name, key = one
    if type(card(name).defaults[key]) is int:
        with pytest.raises(InputError, match=rf"{name}\({key}=0\): must be at least 1"):
            sampler(f"{name}({key}=0)")

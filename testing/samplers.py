"""The contract of samplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fusebench.methods.parts import Sampler
from fusebench.testing.promises import part_class, require

EPOCHS = 3
SEEDS = (0, 1, 2)
WORDS = ("river", "bank", "loan", "water", "money", "tree")


def check_sampler(sampler: type[Sampler] | str, /, **params: Any) -> None:
    """Asserts that a sampler keeps the contract on 40 rows, on fewer, and on rows that are all alike.

    A permutation of the rows; the same whatever was asked before, and with other random numbers around; the epoch
    changes what the seed changes; truthful `wants_embeddings`; input untouched.

    Args:
        sampler: the class or its registered name.
        params: its hyper-parameters.
    """
    kind = part_class(sampler, Sampler)

    def new() -> Sampler:
        built: Sampler = kind(**params)
        return built

    for rows in (1, 2, 3, 40):
        _check_orders(new(), *_rows(rows))
    _check_orders(new(), ["the same"] * 40, np.ones((40, 5), dtype=np.float32))
    texts, embeddings = _rows(40)
    part = new()
    orders = {
        (epoch, seed): _order(part, epoch, texts, embeddings, seed) for seed in SEEDS for epoch in range(EPOCHS)
    }
    for (epoch, seed), order in reversed(orders.items()):
        alone = _order(new(), epoch, texts, embeddings, seed)
        require(np.array_equal(alone, order), "an order depends on seed and epoch, and not on earlier calls")
    for epoch in range(1, EPOCHS):
        by_seed = [orders[epoch, seed] for seed in SEEDS]
        random = any(not np.array_equal(by_seed[0], order) for order in by_seed)
        pairs = [(orders[epoch - 1, seed], orders[epoch, seed]) for seed in SEEDS]
        fixed = all(np.array_equal(before, after) for before, after in pairs)
        require(not (random and fixed), "an order that the seed changes is changed by the epoch too")


def _rows(count: int) -> tuple[list[str], np.ndarray]:
    """Texts of two words, some of them equal, and a vector for each text."""
    generator = np.random.default_rng(count)
    texts = [" ".join(generator.choice(WORDS, size=2)) for _ in range(count)]
    vectors = {text: generator.normal(size=5) for text in dict.fromkeys(texts)}
    return texts, np.array([vectors[text] for text in texts], dtype=np.float32)


def _order(part: Sampler, epoch: int, texts: Sequence[str], embeddings: np.ndarray, seed: int) -> np.ndarray:
    """The order, given embeddings only if it wants them."""
    given = embeddings if part.wants_embeddings(epoch) else None
    try:
        return part.order(epoch, texts, given, seed=seed)
    except Exception as error:
        how = (
            "with the embeddings that it wants" if given is not None else "without embeddings, which it does not want"
        )
        raise AssertionError(
            f"broken promise: there is an order of {len(texts)} rows in epoch {epoch}, {how}, and not {error!r}"
        ) from error


def _check_orders(part: Sampler, texts: list[str], embeddings: np.ndarray) -> None:
    before = list(texts), embeddings.copy()
    for epoch in range(EPOCHS):
        order = _order(part, epoch, texts, embeddings, seed=7)
        whole = order.shape == (len(texts),) and np.issubdtype(order.dtype, np.integer)
        require(whole, f"an order is {len(texts)} whole numbers, not {order.dtype} of shape {order.shape}")
        require(sorted(order.tolist()) == list(range(len(texts))), "an order is a permutation: every row comes once")
        np.random.rand()  # moves the numbers that a careless sampler would draw from
        torch.rand(())
        again = _order(part, epoch, texts, embeddings, seed=7)
        require(np.array_equal(again, order), "a sampler is deterministic")
        require(texts == before[0] and np.array_equal(embeddings, before[1]), "the input is untouched")
        if part.wants_embeddings(epoch):
            _check_missing_embeddings_are_refused(part, epoch, texts)


def _check_missing_embeddings_are_refused(part: Sampler, epoch: int, texts: Sequence[str]) -> None:
    try:
        part.order(epoch, texts, None, seed=7)
    except ValueError:
        return
    raise AssertionError("broken promise: missing embeddings raise ValueError; there is no order in their place")

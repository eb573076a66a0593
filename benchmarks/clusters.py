"""Which items of a task are not independent, and how clusters of them are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fusebench.benchmarks.bootstrap import Singles, draw_counts

_FEWEST_GROUPS = 50


@dataclass(frozen=True, eq=False)
class Clusters:
    """How the items of one subset and split are drawn.

    Attributes:
        kind: `items`: each by itself; `groups`: all items of a group together; `nodes`: texts are drawn, and a pair
            occurs as often as the product of how often its two texts were drawn.
        left: The unit of each item; of a pair under `nodes`, that of its first text.
        right: The same, of the second text.
        units: How many units are drawn from.
    """

    kind: Literal["items", "groups", "nodes"]
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    units: int

    def weights(self, generator: np.random.Generator, resamples: int) -> Singles:
        """How often each item occurs in each resample: (items, resamples), whole numbers."""
        return self._of_items(draw_counts(self.units, resamples, generator))

    def without(self, units: Sequence[int]) -> Singles:
        """How often each item occurs when one unit is left out, a column for each of these units."""
        counts = np.ones((self.units, len(units)), dtype=np.float32)
        counts[units, np.arange(len(units))] = 0
        return self._of_items(counts)

    def _of_items(self, counts: Singles) -> Singles:
        if self.kind == "items":
            return counts
        weights = counts[self.left]
        if self.kind == "nodes":
            # a text paired with itself is one unit's affair
            weights = np.where((self.left == self.right)[:, None], weights, weights * counts[self.right])
        return weights


def independent(count: int) -> Clusters:
    """Every item by itself."""
    units = np.arange(count)
    return Clusters("items", units, units, count)


def sentence_clusters(first: Sequence[str], second: Sequence[str]) -> Clusters:
    """The clusters of an STS split: pairs that share a text, case and spacing aside, are not independent.

    Where the connected groups are many and alike - their effective number, 1 / sum of squared shares, is at least
    50 - whole groups are drawn. Otherwise one group dominates, as in all pairs of 50 documents, and the texts are
    drawn: the node or pigeonhole bootstrap (Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1,
    386-411).
    """
    number: dict[str, int] = {}
    left, right = (
        np.asarray([number.setdefault(" ".join(text.lower().split()), len(number)) for text in texts], dtype=np.intp)
        for texts in (first, second)
    )
    ends = coo_array((np.ones(len(left)), (left, right)), shape=(len(number), len(number)))
    groups, group_of_text = connected_components(ends, directed=False)
    group = group_of_text[left].astype(np.intp)
    sizes = np.bincount(group)
    if groups == len(left):
        return independent(len(left))
    if len(left) ** 2 / (sizes.astype(float) ** 2).sum() >= _FEWEST_GROUPS:
        return Clusters("groups", group, group, int(groups))
    return Clusters("nodes", left, right, len(number))


def task_clusters(task: Any, data: Any, items: NDArray[Any]) -> Clusters:
    """The clusters of the samples of one subset and split of a loaded task.

    Args:
        task: The mteb task.
        data: Its rows, or its queries and corpus; queries are independent unless their texts are equal.
        items: Row numbers, or ids of queries.
    """
    if isinstance(data, dict):
        text = dict(zip(data["queries"]["id"], data["queries"]["text"], strict=True))
        asked = [text[query] for query in items.tolist()]
        return sentence_clusters(asked, asked)
    columns = [list(data[column]) for column in task.column_names]
    first, second = ([column[row] for row in items.tolist()] for column in columns)
    return sentence_clusters(first, second)

"""What a score is made of: one number a pair or a query, without any text or label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fusebench.benchmarks.tasks import LoadedTask

Quantity = Literal["similarity", "score"]

_CUTS = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}


@dataclass(frozen=True, eq=False)
class SamplePart:
    """The numbers of one subset and split.

    Attributes:
        subset: mteb's name.
        split: mteb's name.
        items: Row numbers of an STS split as int32, ids of the queries of a retrieval split, in the data's order.
        values: One float32 an item.
    """

    subset: str
    split: str
    items: NDArray[Any]
    values: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Samples:
    """The numbers of one cell.

    Attributes:
        metric: mteb's main metric of the task, such as `cosine_spearman` or `ndcg_at_10`.
        quantity: `similarity`: cosines that the metric correlates with the gold scores; `score`: the metric itself,
            a query at a time.
        data_sha256: Of the data that the items are rows or queries of.
        parts: One a subset and split, in mteb's order.
    """

    metric: str
    quantity: Quantity
    data_sha256: str
    parts: tuple[SamplePart, ...]


def query_score(metric: str, measured: Mapping[str, float]) -> float:
    """A query's value of one of mteb's metrics, from what the TREC evaluation says of the query.

    Args:
        metric: mteb's name, such as `ndcg_at_10`.
        measured: By the evaluation's own names, such as `ndcg_cut_10`.

    Raises:
        ValueError: The metric is not a mean over queries of one that was measured.
    """
    family, _, cut = metric.partition("_at_")
    key = f"{_CUTS.get(family, family)}_{cut}"
    if key not in measured:
        raise ValueError(f"{metric} is not measured query by query, so no samples can be kept of it")
    return measured[key]


def gold_scores(loaded: LoadedTask) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The human scores of an STS task by subset and split, in the data's order; nothing for retrieval."""
    from fusebench.benchmarks import task_data

    if loaded.spec.type != "STS":
        return {}
    return {
        (subset, split): np.asarray(data["score"], dtype=np.float64)
        for subset, split, data in task_data.parts(loaded.task)
    }


def part_scores(samples: Samples, loaded: LoadedTask) -> list[float]:
    """The main metric of each part, computed from the samples; mteb's main score is their mean.

    mteb rounds retrieval metrics to five places, so those agree to half a unit of the fifth.
    """
    from scipy.stats import spearmanr

    if samples.quantity == "score":
        return [float(part.values.mean(dtype=np.float64)) for part in samples.parts]
    gold = gold_scores(loaded)
    return [float(spearmanr(gold[part.subset, part.split], part.values)[0]) for part in samples.parts]

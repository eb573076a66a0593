"""An STS task with a part of its pairs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from fusebench.benchmarks.mteb_bridge import quiet
from fusebench.errors import InputError

if TYPE_CHECKING:
    from fusebench.benchmarks.tasks import LoadedTask


def restricted(loaded: LoadedTask, keep: Bool[np.ndarray, " pairs"]) -> LoadedTask:
    """The task with these pairs only, for `judge`; the given one stays as it is.

    Args:
        loaded: an STS task.
        keep: one value a pair, subsets and splits one after the other.

    Raises:
        InputError: if the pairs are not `restrictable`.
    """
    from fusebench.benchmarks import task_data
    from fusebench.benchmarks.listed_dataset import ListedDataset
    from fusebench.benchmarks.tasks import LoadedTask

    if not restrictable(loaded, keep):
        raise InputError(f"task {loaded.spec.name}: the pairs that are left have no correlation: keep other pairs")
    task = copy.copy(loaded.task)
    task.dataset = {key: dict(data) if isinstance(data, Mapping) else data for key, data in task.dataset.items()}
    empty = 0
    for subset, split, data, rows in _kept(loaded, keep):
        with quiet():
            left = ListedDataset.of(data.select(rows))
        task_data.replace(task, subset, split, left)
        empty += sum(not text.strip() for _, _, values in task_data.texts(task, left) for text in values)
    spec = loaded.spec.model_copy(update={"data_sha256": task_data.content_sha256(task)})
    return LoadedTask(task=task, spec=spec, limit=loaded.limit, empty_texts=empty)


def restrictable(loaded: LoadedTask, keep: Bool[np.ndarray, " pairs"]) -> bool:
    """Whether of each split three pairs or more are kept, with more than one score."""
    from fusebench.benchmarks.task_preparation import no_correlation

    kept = ((data["score"], rows) for _, _, data, rows in _kept(loaded, keep))
    return all(no_correlation([scores[row] for row in rows]) is None for scores, rows in kept)


def _kept(loaded: LoadedTask, keep: Bool[np.ndarray, " pairs"]) -> list[tuple[str, str, Any, list[int]]]:
    """Subset, split, data and rows that are kept."""
    from fusebench.benchmarks import task_data

    parts = task_data.parts(loaded.task) if loaded.spec.type == "STS" else []
    if keep.shape != (sum(len(data) for _, _, data in parts),):
        raise ValueError(f"{keep.shape} is not the shape of the pairs of {loaded.spec.name}")
    ends = np.cumsum([len(data) for _, _, data in parts])
    masks = np.split(keep, ends[:-1])
    return [(*part, np.flatnonzero(mask).tolist()) for part, mask in zip(parts, masks, strict=True)]

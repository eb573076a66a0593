"""A data set that mteb reads fast: its columns are lists, and what is made of it once is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import datasets

Made = TypeVar("Made")


class ListedDataset(datasets.Dataset):  # type: ignore[misc]
    """A data set whose columns are lists, as they were before `datasets` 4.

    mteb iterates over columns; since `datasets` 4 that is one Arrow look-up a row, most of the time of an STS
    judgement.
    """

    @classmethod
    def of(cls, dataset: Any) -> ListedDataset:
        """The same rows and columns, without row indices."""
        flat = dataset.flatten_indices(keep_in_memory=True) if dataset._indices is not None else dataset
        return cls(flat.data, info=flat.info, split=flat.split, fingerprint=flat._fingerprint)

    def __getitem__(self, key: Any) -> Any:
        column = super().__getitem__(key)
        return list(column[:]) if isinstance(key, str) else column

    def select(self, indices: Iterable[int], *args: Any, **kwargs: Any) -> Any:
        """The rows at these indices; the same object when they are all rows in order."""
        indices = indices if isinstance(indices, range) else list(indices)
        everything = range(len(self))
        if indices == everything or (len(indices) == len(self) and all(map(int.__eq__, indices, everything))):
            return self
        return super().select(indices, *args, **kwargs)

    def remembered(self, make: Callable[[ListedDataset], Made]) -> Made:
        """What a function makes of these rows, made once: many methods are judged on them."""
        known: dict[Any, Any] = self.__dict__.setdefault("_remembered", {})
        if make not in known:
            known[make] = make(self)
        made: Made = known[make]
        return made

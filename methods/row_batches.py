"""Training rows and the batches that an epoch makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fusebench.methods.parts import Sampler
from fusebench.methods.recipe import batches_in, mix
from fusebench.methods.shuffling import random_order

Embed = Callable[[Int[np.ndarray, " texts"]], Float[np.ndarray, "texts dim"]]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one kind, texts by their numbers in a state source.

    Attributes:
        columns: sentences 1, pairs 2, triplets 3 (anchor, positive, negative).
        first_texts: the texts of the first column.
        labels: of scored pairs, in [0, 1].
        groups: equal numbers mark rows with the same first text.
    """

    columns: Int[np.ndarray, "columns rows"]
    first_texts: tuple[str, ...]
    labels: Float[np.ndarray, " rows"] | None
    groups: Int[np.ndarray, " rows"]

    def __len__(self) -> int:
        return int(self.columns.shape[1])


class BatchStream:
    """Batches by number, epoch after epoch, each a slice of the epoch's order.

    Rows that fill no whole batch at the end of an order are left out of that epoch.

    Args:
        rows: what is gone through.
        batch_size: rows of a batch.
        sampler: makes the orders; None is a random order each epoch.
        seed: of the orders.
        embed: vectors of texts by the method as it is now, for samplers that ask.
    """

    def __init__(self, rows: Rows, batch_size: int, sampler: Sampler | None, seed: int, embed: Embed) -> None:
        self.rows, self.sampler, self.seed, self.embed = rows, sampler, seed, embed
        self.batch_size = min(batch_size, len(rows))
        self.batches_an_epoch = batches_in(len(rows), batch_size)
        self.epoch = -1
        self.order: Int[np.ndarray, " rows"] = np.arange(0)

    def batch(self, number: int) -> Int[np.ndarray, " batch"]:
        """Row numbers of a batch; numbers must not fall."""
        epoch, place = divmod(number, self.batches_an_epoch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self._order(epoch)
        return self.order[place * self.batch_size : (place + 1) * self.batch_size]

    def _order(self, epoch: int) -> Int[np.ndarray, " rows"]:
        if self.sampler is None:
            return random_order(len(self.rows), seed=mix(self.seed, epoch))
        embeddings = self.embed(self.rows.columns[0]) if self.sampler.wants_embeddings(epoch) else None
        return self.sampler.order(epoch, self.rows.first_texts, embeddings, seed=self.seed)

"""Samplers: the batch orders of Chernyavskiy et al. 2022 as parts of a method sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from fusebench.errors import InputError
from fusebench.methods.parts import Sampler
from fusebench.methods.registry import register
from fusebench.methods.shuffling import Order, cluster_order, example_order, random_order, shingle_order

Embeddings = Float[np.ndarray, "rows dim"]


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed that depends on both numbers; those of neighbouring runs and epochs have nothing in common."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def _check_positive(name: str, **sizes: int) -> None:
    for key, size in sizes.items():
        if size < 1:
            raise InputError(f"{name}({key}={size}): must be at least 1.")


def _given(name: str, embeddings: Embeddings | None) -> Embeddings:
    if embeddings is None:
        raise ValueError(f"{name} orders rows by the embeddings of their first texts; there are none.")
    return embeddings


@register("file-order", paper="arXiv:2110.15725")
class FileOrder(Sampler):
    """The rows as they stand in the file, in every epoch: `0, 1, ..., n - 1`.

    Chernyavskiy et al. 2022, "source" order: on data grouped by question the file itself puts hard negatives into
    one batch. Departures: none.
    """

    def order(self, epoch: int, texts: Sequence[str], embeddings: Embeddings | None, *, seed: int) -> Order:
        """The numbers of the rows, rising."""
        return np.arange(len(texts))


@register("example-shuffling", paper="arXiv:2110.15725")
class ExampleShuffling(Sampler):
    """Each row drawn at random is followed by the nearest rows that are still free; then all is reversed.

    Chernyavskiy et al. 2022, as in their released code: nearest by Euclidean distance of the first texts'
    embeddings, which the method as it is at the start of the epoch makes; see `shuffling.example_order`.
    Departures: neighbours at equal distance come by row number; `allow_same` has one default (released: true for
    most data sets).

    Args:
        group_size: distinct first texts that make a group; groups and batches need not be aligned.
        top_k: how many neighbours of a row are looked at.
        allow_same: whether further rows with a text of the group may join it; they do not count.
        first_epoch: "file" goes through the first epoch in the order of the file, as the released code does;
            "random" shuffles it.
    """

    def __init__(
        self,
        *,
        group_size: int = 7,
        top_k: int = 200,
        allow_same: bool = False,
        first_epoch: Literal["file", "random"] = "file",
    ) -> None:
        _check_positive("example-shuffling", group_size=group_size, top_k=top_k)
        self.group_size = group_size
        self.top_k = top_k
        self.allow_same = allow_same
        self.first_epoch = first_epoch

    def wants_embeddings(self, epoch: int) -> bool:
        """In all epochs but the first."""
        return epoch > 0

    def order(self, epoch: int, texts: Sequence[str], embeddings: Embeddings | None, *, seed: int) -> Order:
        """Leftovers first, then group after group.

        Raises:
            ValueError: after the first epoch without embeddings.
        """
        if epoch == 0:
            return (
                np.arange(len(texts))
                if self.first_epoch == "file"
                else random_order(len(texts), seed=epoch_seed(seed, epoch))
            )
        return example_order(
            _given("example-shuffling", embeddings),
            texts,
            group_size=self.group_size,
            top_k=self.top_k,
            allow_same=self.allow_same,
            seed=epoch_seed(seed, epoch),
        )


@register("shingle-shuffling", paper="arXiv:2110.15725")
class ShingleShuffling(Sampler):
    """Rows whose first texts drew the same run of words stand together, in groups, the groups in random order.

    Chernyavskiy et al. 2022, fast shuffling: each row draws one run of `shingle_size` words that are no stop words;
    see `shuffling.shingle_order`. It reads no embeddings.
    Departures: `group_size` has one default (published: 4 to 8, by data set), and groups have exactly as many rows
    (released: one more from a shingle's second group on); words are runs of letters and digits less a list of
    function words (released: NLTK's tokens and stop words).

    Args:
        shingle_size: words of a run; a text of fewer words draws all of them.
        group_size: rows of a group.
    """

    def __init__(self, *, shingle_size: int = 1, group_size: int = 7) -> None:
        _check_positive("shingle-shuffling", shingle_size=shingle_size, group_size=group_size)
        self.shingle_size = shingle_size
        self.group_size = group_size

    def order(self, epoch: int, texts: Sequence[str], embeddings: Embeddings | None, *, seed: int) -> Order:
        """Group after group, drawn anew in each epoch."""
        return shingle_order(
            texts, shingle_size=self.shingle_size, group_size=self.group_size, seed=epoch_seed(seed, epoch)
        )


@register("cluster-shuffling", paper="arXiv:2110.15725")
class ClusterShuffling(Sampler):
    """Rows whose first texts lie in one k-means cluster stand together, in groups, the groups in random order.

    Chernyavskiy et al. 2022, cluster shuffling, online: the method as it is at the start of the epoch makes the
    embeddings; see `shuffling.cluster_order`.
    Departures: the first epoch is ordered too, by the method before training; groups have exactly `group_size` rows
    (released: one more from a cluster's second group on); k-means is scikit-learn's, one run from k-means++, with
    never more clusters than distinct vectors.

    Args:
        clusters: of k-means (published: 300 on the largest data set).
        group_size: rows of a group.
    """

    def __init__(self, *, clusters: int = 100, group_size: int = 15) -> None:
        _check_positive("cluster-shuffling", clusters=clusters, group_size=group_size)
        self.clusters = clusters
        self.group_size = group_size

    def wants_embeddings(self, epoch: int) -> bool:
        """In every epoch."""
        return True

    def order(self, epoch: int, texts: Sequence[str], embeddings: Embeddings | None, *, seed: int) -> Order:
        """Group after group, clustered anew in each epoch.

        Raises:
            ValueError: without embeddings.
        """
        return cluster_order(
            _given("cluster-shuffling", embeddings),
            clusters=self.clusters,
            group_size=self.group_size,
            seed=epoch_seed(seed, epoch),
        )

"""The triplet objective: the negative should be farther from the anchor than the positive, by a margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Objective
from fusebench.methods.registry import register

Distance = Literal["cosine", "euclidean"]


@register("triplet", paper="arXiv:1908.10084")
class Triplet(Objective):
    """`(1/M) sum_i max(0, d(a_i, p_i) - d(a_i, n_i) + margin)`, d = 1 - cosine or the Euclidean distance.

    Reimers and Gurevych 2019, triplet objective. Departures: they take the Euclidean distance with margin 1; here
    the cosine, by which vectors are judged, with margin 0.5 (the margin of the baseline in Chernyavskiy et al.
    2022, whose distance is not stated).
    """

    reads = ("triplets",)

    def __init__(self, *, margin: float = 0.5, distance: Distance = "cosine") -> None:
        super().__init__()
        if margin < 0:
            raise InputError(f"triplet(margin={margin}): must be at least 0.")
        self.margin = margin
        self.distance: Distance = distance

    def forward(
        self,
        embeddings: Sequence[Float[Tensor, "rows dim"]],
        labels: Float[Tensor, " rows"] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """At least 0; the margin for rows with one vector."""
        kind = F.accumulator(embeddings[0].dtype)
        anchors, positives, negatives = (column.to(kind) for column in embeddings)
        gaps = self._distances(anchors, positives) - self._distances(anchors, negatives)
        return (gaps + self.margin).relu().mean()

    def _distances(self, left: Float[Tensor, "rows dim"], right: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
        if self.distance == "cosine":
            return 1 - torch.cosine_similarity(left, right, dim=1)
        return torch.linalg.vector_norm(left - right, dim=1)

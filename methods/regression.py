"""Objectives for pairs with graded similarity: squared error of the cosine, and CoSENT's ranking loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Objective
from fusebench.methods.registry import register


def _cosines_and_labels(
    name: str, embeddings: Sequence[Float[Tensor, "rows dim"]], labels: Float[Tensor, " rows"] | None
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    if labels is None:
        raise ValueError(f"{name} is trained on scored pairs; there are no labels.")
    kind = F.accumulator(embeddings[0].dtype)
    left, right = (column.to(kind) for column in embeddings)
    return torch.cosine_similarity(left, right, dim=1), labels.to(kind)


@register("mse-cosine", paper="arXiv:1908.10084")
class MeanSquaredCosine(Objective):
    """The cosine should equal the label: `(1/M) sum_i (cos(u_i, v_i) - r_i)^2`.

    Reimers and Gurevych 2019, regression objective. Labels are in [0, 1]. Departures: none.
    """

    reads = ("scored-pairs",)

    def forward(
        self,
        embeddings: Sequence[Float[Tensor, "rows dim"]],
        labels: Float[Tensor, " rows"] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """In [0, 4].

        Raises:
            ValueError: without labels.
        """
        cosines, labels = _cosines_and_labels("mse-cosine", embeddings, labels)
        return (cosines - labels).square().mean()


@register("cosent", paper="doi:10.1109/TASLP.2024.3402087")
class CoSENT(Objective):
    """Cosines should be ordered as the labels: `log(1 + sum_{r_i > r_j} exp(scale (cos_j - cos_i)))`.

    Huang et al. 2024; the sum runs over all ordered pairs of rows of the batch, so that only the order of the
    labels counts. Departures: none.
    """

    reads = ("scored-pairs",)

    def __init__(self, *, scale: float = 20.0) -> None:
        super().__init__()
        if scale <= 0:
            raise InputError(f"cosent(scale={scale}): must be above 0.")
        self.scale = scale

    def forward(
        self,
        embeddings: Sequence[Float[Tensor, "rows dim"]],
        labels: Float[Tensor, " rows"] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """At least 0; 0 when all labels are equal.

        Raises:
            ValueError: without labels.
        """
        cosines, labels = _cosines_and_labels("cosent", embeddings, labels)
        gaps = self.scale * (cosines[None, :] - cosines[:, None])
        wrong = gaps[labels[:, None] > labels[None, :]]
        return torch.cat([wrong.new_zeros(1), wrong]).logsumexp(dim=0)

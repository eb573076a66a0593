"""Contrastive objectives of one direction: SimCSE without and with labelled data, and InfoNCE over pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Objective
from fusebench.methods.registry import register


def cosine_logits(
    anchors: Float[Tensor, "rows dim"], others: Float[Tensor, "others dim"], temperature: float
) -> Float[Tensor, "rows others"]:
    """`cos(anchor_i, other_j) / temperature`, in float32 or better."""
    kind = F.accumulator(anchors.dtype)
    left, right = (torch.nn.functional.normalize(side.to(kind), dim=1) for side in (anchors, others))
    return left @ right.mT / temperature


def in_batch_loss(logits: Float[Tensor, "rows others"]) -> Float[Tensor, ""]:
    """`-(1/M) sum_i log softmax(logits[i])[i]`: each row has to pick its own column among all."""
    return -logits.log_softmax(dim=1).diagonal().mean()


def _check_temperature(name: str, temperature: float) -> float:
    if temperature <= 0:
        raise InputError(f"{name}(temperature={temperature}): must be above 0.")
    return temperature


@register("simcse", paper="arXiv:2104.08821")
class UnsupervisedSimCSE(Objective):
    """A text's two noisy encodings find each other in the batch: `-log softmax_j(cos(z_i, z'_j) / temperature)[i]`.

    Gao et al. 2021, Eq. 4, mean over the batch; z and z' differ by dropout only. Without dropout in what is
    trained the two views are equal and the loss only pushes texts apart. Departures: none.
    """

    reads = ("sentences",)
    views = 2

    def __init__(self, *, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = _check_temperature("simcse", temperature)

    def forward(
        self,
        embeddings: Sequence[Float[Tensor, "rows dim"]],
        labels: Float[Tensor, " rows"] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """At least 0; ln M for M texts with one vector."""
        first, second = embeddings
        return in_batch_loss(cosine_logits(first, second, self.temperature))


@register("simcse-sup", paper="arXiv:2104.08821")
class SupervisedSimCSE(Objective):
    """An anchor finds its positive among all positives and all negatives: `-log softmax_j([p_i, n_i])[i]`.

    Gao et al. 2021, Eq. 5, mean over the batch: `p_ij = cos(z_i, z+_j) / temperature`,
    `n_ij = cos(z_i, z-_j) / temperature + w [i = j]`. `hard_negative_weight` w weighs the row's own negative by
    exp(w) (Eq. 8 has alpha = exp(w)); SimCSE trains with w = 0, the released layer-wise attention pooling
    (Oh et al. 2022) with w = 1.
    Departures: negatives come from this batch only, not from those of other processes.
    """

    reads = ("triplets",)

    def __init__(self, *, temperature: float = 0.05, hard_negative_weight: float = 0.0) -> None:
        super().__init__()
        self.temperature = _check_temperature("simcse-sup", temperature)
        self.hard_negative_weight = hard_negative_weight

    def forward(
        self,
        embeddings: Sequence[Float[Tensor, "rows dim"]],
        labels: Float[Tensor, " rows"] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """At least 0; ln 2M for M rows with one vector and w = 0."""
        anchors, positives, negatives = embeddings
        towards = cosine_logits(anchors, positives, self.temperature)
        away = cosine_logits(anchors, negatives, self.temperature)
        own = torch.eye(len(anchors), dtype=away.dtype, device=away.device)
        return in_batch_loss(torch.cat([towards, away + self.hard_negative_weight * own], dim=1))


@register("info-nce", paper="arXiv:1807.03748")
class InfoNCE(Objective):
    """An anchor finds its positive among those of the batch: `-log softmax_j(cos(q_i, a_j) / temperature)[i]`.

    van den Oord et al. 2018, Eq. 4, mean over the batch; the other rows' positives are the negatives, as in
    Henderson et al. 2017 (arXiv:1705.00652).
    Departures: cosine over a temperature instead of a bilinear score (1807.03748) or a dot product (1705.00652).
    """

    reads = ("pairs",)

    def __init__(self, *, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = _check_temperature("info-nce", temperature)

    def forward(
        self,
        embeddings: Sequence[Float[Tensor, "rows dim"]],
        labels: Float[Tensor, " rows"] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """At least 0; ln M for M rows with one vector."""
        anchors, positives = embeddings
        return in_batch_loss(cosine_logits(anchors, positives, self.temperature))

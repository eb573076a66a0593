"""The batch-softmax contrastive loss: both directions, labelled negatives, and its mixture with a squared error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Objective, Reads
from fusebench.methods.registry import register

Normalization = Literal["l2", "batch-range", "none"]

_TEMPERATURE = 0.1


def normalize(X: Float[Tensor, "rows dim"], how: Normalization) -> Float[Tensor, "rows dim"]:
    """Rows of length 1 (`l2`), or columns divided by their range in the batch (`batch-range`), or X itself.

    `batch-range` depends on the batch, so it cannot be applied to one text: scores stay plain cosines. A column
    that is constant in the batch tells no rows apart and becomes 0.
    """
    if how == "l2":
        return torch.nn.functional.normalize(X, dim=1)
    if how == "batch-range":
        span = X.amax(dim=0) - X.amin(dim=0)
        return X / span.masked_fill(span == 0, torch.inf)
    return X


@register("batch-softmax", paper="arXiv:2110.15725")
class BatchSoftmax(Objective):
    """Pairs find each other in the batch, both ways: `(L_row + L_col) / 2`, labelled negatives only compete.

    Chernyavskiy et al. 2022, as in their released code: `S = Q^ A^^T / temperature`,
    `L_row = -(1/M) sum_i y_i log softmax(S[i, :])[i]`, `L_col` the same over `S[:, i]`; `^` is `normalization`.
    y is 1 where the label is above `threshold`, and 1 everywhere without labels. The mean runs over all M rows;
    `average="positives"` divides by sum y instead. Negatives of triplets are further columns of `L_row`.
    `learned_temperature` puts a weight alpha, 1 at the start, with a learning rate of its own, in the place of
    1 / temperature. Below 1, `mu` mixes in a squared error against the labels r themselves:
    `mu L + (1 - mu) (1/M) sum_i (cos(q_i, a_i) - r_i)^2`.
    Departures: temperature and threshold have defaults (published: one for each data set, 0.1 and 0.6 among
    them); the mixture has the same threshold as the rest (released: fixed, labels from 0.5 on); a constant column
    under `batch-range` is 0 (released: division by 0). `mask_duplicates`, off unless asked for, is not in the
    paper: rows with the same first text are then not each other's negatives.
    """

    reads: tuple[Reads, ...] = ("scored-pairs", "pairs", "triplets")

    def __init__(
        self,
        *,
        temperature: float = _TEMPERATURE,
        learned_temperature: bool = False,
        alpha_lr: float = 1e-3,
        normalization: Normalization = "l2",
        threshold: float = 0.6,
        average: Literal["rows", "positives"] = "rows",
        mu: float = 1.0,
        mask_duplicates: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("alpha_lr", alpha_lr)):
            if value <= 0:
                raise InputError(f"batch-softmax({name}={value}): must be above 0.")
        for name, value in (("threshold", threshold), ("mu", mu)):
            if not 0 <= value <= 1:
                raise InputError(f"batch-softmax({name}={value}): must be from 0 to 1.")
        if learned_temperature and temperature != _TEMPERATURE:
            raise InputError(
                f"batch-softmax(temperature={temperature},learned_temperature=true): a learned temperature starts "
                "at 1; leave one of the two out."
            )
        self.temperature = temperature
        self.alpha = nn.Parameter(torch.ones(())) if learned_temperature else None
        self.own_learning_rate = {"alpha": alpha_lr} if learned_temperature else {}
        self.normalization: Normalization = normalization
        self.threshold = threshold
        self.average = average
        self.mu = mu
        self.mask_duplicates = mask_duplicates
        if mu < 1:
            self.reads = ("scored-pairs",)

    def forward(
        self,
        embeddings: Sequence[Float[Tensor, "rows dim"]],
        labels: Float[Tensor, " rows"] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """At least 0.

        Raises:
            ValueError: if `mu` needs labels or `mask_duplicates` needs groups and there are none.
        """
        kind = F.accumulator(embeddings[0].dtype)
        queries, *others = (column.to(kind) for column in embeddings)
        if labels is not None:
            labels = labels.to(kind)
        loss = self.contrast(queries, torch.cat(others), labels, groups)
        if self.mu == 1:
            return loss
        if labels is None:
            raise ValueError("batch-softmax with mu below 1 is trained on scored pairs; there are no labels.")
        error = torch.cosine_similarity(queries, others[0], dim=1) - labels
        return self.mu * loss + (1 - self.mu) * error.square().mean()

    def contrast(
        self,
        queries: Float[Tensor, "rows dim"],
        answers: Float[Tensor, "columns dim"],
        labels: Float[Tensor, " rows"] | None,
        groups: Int[Tensor, " rows"] | None,
    ) -> Float[Tensor, ""]:
        """The loss without the squared error; the first columns are the rows' own answers."""
        rows = len(queries)
        S = normalize(queries, self.normalization) @ normalize(answers, self.normalization).mT
        S = S / self.temperature if self.alpha is None else S * self.alpha.to(S.dtype)
        if self.mask_duplicates:
            S = S.masked_fill(_duplicates(groups, len(answers)), -torch.inf)
        y = torch.ones_like(queries[:, 0]) if labels is None else (labels > self.threshold).to(S.dtype)
        row = S.log_softmax(dim=1).diagonal()
        column = S[:, :rows].log_softmax(dim=0).diagonal()
        count = rows if self.average == "rows" else y.sum().clamp(min=1)
        return -(y * (row + column)).sum() / (2 * count)


def _duplicates(groups: Int[Tensor, " rows"] | None, columns: int) -> Bool[Tensor, "rows columns"]:
    if groups is None:
        raise ValueError("batch-softmax with mask_duplicates needs the groups of the rows; there are none.")
    same = groups[:, None] == groups[None, :]
    same.fill_diagonal_(False)
    return torch.nn.functional.pad(same, (0, columns - len(groups)), value=False)

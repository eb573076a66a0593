"""The budget and the optimizer of a training: equal for every method that is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from fusebench.errors import InputError

Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class Recipe:
    """How long and how fast weights are trained.

    Attributes:
        epochs: passes over the rows, all stages together; or
        steps: updates, all stages together.
        batch_size: rows of a batch; in-batch negatives come from one batch.
        learning_rate: of the backbone's weights.
        learning_rate_new: of the method's own weights.
        weight_decay: of matrices; vectors and scalars (biases, norms, layer weights) have none.
        warmup: share of a stage's updates over which the learning rate rises from 0; then it falls linearly to 0.
        max_grad_norm: gradients are scaled down to this length.
        accumulate: batches an update.
        chunk: texts that are embedded at a time, gradients kept for one chunk only; None is the whole batch.
        precision: of mixed-precision arithmetic; weights and losses stay float32.
    """

    epochs: int | None = 3
    steps: int | None = None
    batch_size: int = 64
    learning_rate: float = 2e-5
    learning_rate_new: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    accumulate: int = 1
    chunk: int | None = None
    precision: Precision = "no"

    def updates(self, rows: Sequence[int]) -> tuple[int, ...]:
        """Updates of each stage, for stages with so many rows each; they share the budget equally.

        A stage on n rows gets its share of the updates that `epochs` passes over n rows take.

        Raises:
            InputError: if there are fewer steps than stages.
        """
        stages = len(rows)
        if self.steps is not None:
            if self.steps < stages:
                raise InputError(f"--steps {self.steps}: a method with {stages} objectives needs at least {stages}.")
            return tuple(self.steps // stages + (k < self.steps % stages) for k in range(stages))
        epochs = self.epochs or 1
        return tuple(
            max(1, round(epochs * batches_in(n, self.batch_size) / (self.accumulate * stages))) for n in rows
        )

    def rate_factor(self, update: int, updates: int) -> float:
        """Share of the learning rate at an update, the first is 0: linear warm-up from 0, linear decay to 0."""
        warm = round(self.warmup * updates)
        return (update + 1) / (warm + 1) if update < warm else (updates - update) / (updates - warm)


def batches_in(rows: int, batch_size: int) -> int:
    """Whole batches of an epoch; the rest of the rows waits for another epoch's order, unless it is all there is."""
    return max(1, rows // batch_size)


def mix(*numbers: int) -> int:
    """One seed from several numbers, so that streams of random numbers do not repeat each other."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def build_optimizer(
    recipe: Recipe, new: nn.Module, own_rates: Mapping[str, float], objective: nn.Module, backbone: nn.Module | None
) -> torch.optim.AdamW:
    """AdamW over everything that learns.

    Args:
        recipe: rates and decay.
        new: the fusion.
        own_rates: learning rates of the objective's own weights, by name.
        objective: the loss; weights without a rate of their own get that of the fusion's.
        backbone: trained along, or None.
    """
    groups: list[dict[str, Any]] = []

    def add(weights: Sequence[nn.Parameter], rate: float, decay: float) -> None:
        if weights:
            groups.append({"params": list(weights), "lr": rate, "weight_decay": decay})

    for module, rate in ((backbone, recipe.learning_rate), (new, recipe.learning_rate_new)):
        weights = [weight for weight in module.parameters() if weight.requires_grad] if module else []
        add([weight for weight in weights if weight.ndim > 1], rate, recipe.weight_decay)
        add([weight for weight in weights if weight.ndim <= 1], rate, 0.0)
    for name, weight in objective.named_parameters():
        add([weight], own_rates.get(name, recipe.learning_rate_new), 0.0)
    return torch.optim.AdamW(groups, fused=True)  # one kernel for all weights, on a processor too

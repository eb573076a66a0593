"""The choice of the best weights: every method in training is looked at on dev rows from time to time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from fusebench.methods.batching import plan_batches
from fusebench.methods.dev_score import dev_score, dev_texts
from fusebench.methods.engine import BATCH_TOKENS
from fusebench.methods.row_batches import Rows
from fusebench.methods.state_sources import StateSource
from fusebench.methods.trainee import Trainee, alive

Log = Callable[[str, dict[str, Any]], None]  # name of the method in training, what happened


@dataclass(frozen=True)
class Selection:
    """On what, and how often, the best weights are chosen."""

    rows: Rows
    every: int | None = None  # updates; None is at most four times a training

    def is_due(self, done: int, total: int) -> bool:
        """Whether to look after so many updates; always after the last."""
        every = self.every or math.ceil(total / 4)
        return done % every == 0 or done == total

    def look(self, trainees: Sequence[Trainee], source: StateSource, done: int, log: Log) -> None:
        """Scores every method on the dev rows and keeps the weights that are the best so far.

        Weights that cannot be scored are never the best.
        """
        numbers = dev_texts(self.rows)
        for trainee, vectors in current_vectors(trainees, source, numbers):
            score = dev_score(self.rows, numbers, vectors)
            log(trainee.name, {"update": done, "dev_score": score if math.isfinite(score) else None})
            if math.isfinite(score) and (trainee.dev_score is None or score > trainee.dev_score):
                trainee.dev_score, trainee.best_update = score, done
                weights = trainee.weights(source.trained)
                trainee.best = {name: tensor.detach().clone() for name, tensor in weights.items()}

    @staticmethod
    def keep_best(trainees: Sequence[Trainee], source: StateSource) -> None:
        """Goes back to each method's best weights; one that was never scored has failed."""
        for trainee in alive(trainees):
            if trainee.dev_score is None:
                trainee.failure = ArithmeticError(
                    "no look at the dev rows found vectors that are finite and differ; try a smaller learning rate"
                )
            else:
                trainee.load_weights(trainee.best, source.trained)


def current_vectors(
    trainees: Sequence[Trainee], source: StateSource, numbers: Int[np.ndarray, " texts"]
) -> list[tuple[Trainee, Float[np.ndarray, "texts dim"]]]:
    """Vectors of these texts by each method as it is now, without noise; one that cannot make them has failed."""
    running = alive(trainees)
    found = {trainee: np.empty((len(numbers), trainee.fusion.out_dim), dtype=np.float32) for trainee in running}
    for trainee in running:
        trainee.set_training(False, source.trained)
    budget = BATCH_TOKENS.get(source.device.type, 4096)
    with torch.no_grad():
        for batch in plan_batches(source.lengths[numbers], budget):
            states: Any = None
            for trainee in alive(running):
                with trainee.failing_alone():
                    if states is None:
                        states = trainee.read(source, numbers[batch], None)
                    found[trainee][batch] = trainee.embed(states).cpu().numpy()
    return [(trainee, found[trainee]) for trainee in alive(running)]

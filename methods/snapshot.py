"""What a training has in memory after an update, on disk, so that it can go on after an end that was not planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import checkpoint as files
from fusebench.methods.backbone import Backbone
from fusebench.methods.row_batches import BatchStream
from fusebench.methods.trainee import Trainee

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A training after so many updates of a stage.

    Noise needs no room here: it is drawn from the seed and the number of the update.

    Attributes:
        epoch: that the order is of.
        methods: what is known of each trainee, beside its tensors.
        tensors: names begin with the trainee's place.
    """

    stage: int
    updates: int
    epoch: int
    methods: Sequence[dict[str, Any]]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path, trainees: Sequence[Trainee]) -> Snapshot | None:
        """The snapshot of a training of these very methods; None if there is none, or one of others.

        Raises:
            InputError: if the file is damaged, so that nobody trains for hours anew without knowing why.
        """
        if not path.exists():
            return None
        tensors, facts = files.read_tensors(path)
        try:
            if facts["schema"] != SCHEMA or facts["names"] != [trainee.name for trainee in trainees]:
                return None
            return cls(facts["stage"], facts["updates"], facts["epoch"], facts["trainees"], tensors)
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is no checkpoint of a training; delete it to train again.") from error

    def restore(self, trainees: Sequence[Trainee], stream: BatchStream, backbone: Backbone | None) -> None:
        """Puts everything back into trainees that have begun the stage."""
        stream.epoch, stream.order = self.epoch, self.tensors["order"].numpy()
        for place, (trainee, known) in enumerate(zip(trainees, self.methods, strict=True)):
            trainee.losses, trainee.dev_score = known["losses"], known["dev_score"]
            trainee.best_update = known["best_update"]
            if known["failure"] is not None:
                trainee.failure = ArithmeticError(known["failure"])
                continue
            own = {n.removeprefix(f"{place}/"): t for n, t in self.tensors.items() if n.startswith(f"{place}/")}
            trainee.best = {n.removeprefix("best."): t for n, t in own.items() if n.startswith("best.")}
            trainee.load_weights(own, backbone)
            files.load_module(trainee.objectives[self.stage], own, "objective.")
            files.load_optimizer(trainee.optimizer.optimizer, own, "optimizer.")
            if known["scaler"] is not None:
                trainee.accelerator.scaler.load_state_dict(known["scaler"])


def write_snapshot(
    path: Path,
    trainees: Sequence[Trainee],
    backbone: Backbone | None,
    *,
    stage: int,
    updates: int,
    stream: BatchStream,
) -> None:
    """Writes all that an uninterrupted training would have in memory after so many updates of a stage.

    Raises:
        InputError: if the disk refuses.
    """
    tensors: dict[str, Tensor] = {"order": torch.from_numpy(np.ascontiguousarray(stream.order))}
    facts: dict[str, Any] = {"schema": SCHEMA, "names": [trainee.name for trainee in trainees]}
    facts |= {"stage": stage, "updates": updates, "epoch": stream.epoch}
    facts["trainees"] = [_facts(trainee) for trainee in trainees]
    for place, trainee in enumerate(trainees):
        if trainee.failure is None:
            held = _tensors(trainee, trainee.weights(backbone), stage)
            tensors |= {f"{place}/{name}": tensor for name, tensor in held.items()}
    files.write_tensors(path, tensors, facts)


def _facts(trainee: Trainee) -> dict[str, Any]:
    scaler = trainee.accelerator.scaler
    return {
        "losses": trainee.losses,
        "dev_score": trainee.dev_score,
        "best_update": trainee.best_update,
        "failure": None if trainee.failure is None else str(trainee.failure),
        "scaler": None if scaler is None else scaler.state_dict(),
    }


def _tensors(trainee: Trainee, weights: dict[str, Tensor], stage: int) -> dict[str, Tensor]:
    return {
        **weights,
        **{f"best.{name}": tensor for name, tensor in trainee.best.items()},
        **files.module_state(trainee.objectives[stage], "objective."),
        **files.optimizer_state(trainee.optimizer.optimizer, "optimizer."),
    }

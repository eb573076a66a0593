"""The one loop that trains every learned method; several side by side where they read the same frozen states."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from fusebench.methods.engine import is_out_of_memory
from fusebench.methods.gradients import BatchGradients
from fusebench.methods.parts import Fusion, Sampler
from fusebench.methods.precision import build_accelerators
from fusebench.methods.process_group import ProcessGroup
from fusebench.methods.recipe import mix
from fusebench.methods.row_batches import BatchStream, Rows
from fusebench.methods.selection import Log, Selection, current_vectors
from fusebench.methods.snapshot import Snapshot, write_snapshot
from fusebench.methods.state_sources import StateSource
from fusebench.methods.trainee import Trainee, alive

__all__ = ["Log", "Progress", "Selection", "TrainingLoop"]

Progress = Callable[[int, int], None]  # updates done, updates in all
Batch = Int[np.ndarray, " batch"]

_LOG = logging.getLogger(__name__)
_PROBE = 64  # texts whose layer weights are logged
_STREAMS = {"order": 1, "noise": 2}  # of random numbers


class TrainingLoop:
    """Trains methods on the same rows in the same order, each by its own objective and optimizer.

    What a method learns does not depend on which others are trained beside it: noise is drawn from (seed, update).

    Args:
        trainees: with the same number of stages and the same budget; one alone where the backbone is trained.
        stages: rows of each stage.
        source: of states.
        seed: of order and noise.
        sampler: order of the rows; None is a random one each epoch.
        selection: None keeps the last weights.
        checkpoint: file to go on from after an end that was not planned; None keeps none.
        checkpoint_seconds: between two writes of it.
        group: the processes that share each batch, all of which run this loop; None is this one alone.
        log: takes what is worth keeping of an update or of a look at the dev rows.
        progress: called after each update.
    """

    def __init__(
        self,
        trainees: Sequence[Trainee],
        stages: Sequence[Rows],
        source: StateSource,
        *,
        seed: int,
        sampler: Sampler | None = None,
        selection: Selection | None = None,
        checkpoint: Path | None = None,
        checkpoint_seconds: float = 60.0,
        group: ProcessGroup | None = None,
        log: Log = lambda name, event: None,
        progress: Progress = lambda done, total: None,
    ) -> None:
        if len(trainees) != 1 and (source.trained is not None or sampler is not None):
            raise ValueError("a trained backbone and a sampler serve one method at a time")
        self.trainees, self.stages, self.source, self.seed = list(trainees), list(stages), source, seed
        self.sampler, self.selection, self.log, self.progress = sampler, selection, log, progress
        self.recipe = trainees[0].recipe
        self.updates = self.recipe.updates([len(rows) for rows in stages])
        self.checkpoint, self.checkpoint_seconds = checkpoint, checkpoint_seconds
        self._written = time.monotonic()
        self.group = group
        self._gradients = BatchGradients(source, self.recipe, group)
        accelerators = build_accelerators(self.recipe.precision, source.device, len(trainees))
        for trainee, accelerator in zip(self.trainees, accelerators, strict=True):
            trainee.accelerator = accelerator

    @property
    def examples(self) -> int:
        """Rows that each method sees, repetitions included."""
        sizes = [min(self.recipe.batch_size, len(rows)) for rows in self.stages]
        return sum(u * size * self.recipe.accumulate for u, size in zip(self.updates, sizes, strict=True))

    def run(self) -> None:
        """Trains to the end; a method that fails has its `failure` set, and the others go on.

        Raises:
            InputError: if the checkpoint is damaged or cannot be written.
        """
        found = None if self.checkpoint is None else Snapshot.read(self.checkpoint, self.trainees)
        for stage, rows in enumerate(self.stages):
            if found is not None and stage < found.stage:
                continue
            seed = mix(self.seed, _STREAMS["order"], stage)
            stream = BatchStream(rows, self.recipe.batch_size, self.sampler, seed, self._embed)
            for trainee in alive(self.trainees):
                trainee.begin_stage(stage, self.source.device, self.source.trained)
            first = 0
            if found is not None and stage == found.stage:
                found.restore(self.trainees, stream, self.source.trained)
                first, found = found.updates, None
            for update in range(first, self.updates[stage]):
                self._update(stage, update, rows, stream)
                self._after(stage, update, stream)
        self._finish()

    # One update

    def _update(self, stage: int, update: int, rows: Rows, stream: BatchStream) -> None:
        batches = self._batches(update, stream)
        shared: list[dict[Any, Any]] = [{} for _ in batches]  # frozen states, read once for all
        for trainee in alive(self.trainees):
            event: dict[str, float] = {}
            with trainee.failing_alone():
                event = self._learn(trainee, stage, update, rows, batches, shared)
                trainee.losses.append(event["loss"])
                event |= self._layer_weights(trainee, stage, update)
            if event and self._is_logged(stage, update):
                self.log(trainee.name, {"stage": stage, "update": self._done(stage, update), **event})

    def _batches(self, update: int, stream: BatchStream) -> list[Batch]:
        """The batches of an update."""
        if self.sampler is None:
            return [stream.batch(number) for number in self._numbers(update)]
        for trainee in alive(self.trainees):  # one at most, whose vectors the sampler may read
            with trainee.failing_alone():
                return [stream.batch(number) for number in self._numbers(update)]
        return []

    def _numbers(self, update: int) -> range:
        return range(update * self.recipe.accumulate, (update + 1) * self.recipe.accumulate)

    def _learn(
        self,
        trainee: Trainee,
        stage: int,
        update: int,
        rows: Rows,
        batches: Sequence[Batch],
        shared: Sequence[dict[Any, Any]],
    ) -> dict[str, float]:
        """Takes one step; what the loss was made of, means over the batches."""
        trainee.set_rates(self.recipe.rate_factor(update, self.updates[stage]))
        trainee.set_training(True, self.source.trained)
        terms: list[dict[str, float]] = []
        try:
            terms = self._add_gradients(trainee, stage, update, rows, batches, shared)
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            # Of several processes all would have to begin again, and the others do not know yet.
            if trainee.piecewise or self.group is not None or not is_out_of_memory(error):
                raise
        if not terms:  # outside of the except clause, so that the failed batch's tensors are gone
            self._make_piecewise(trainee, self._done(stage, update))
            terms = self._add_gradients(trainee, stage, update, rows, batches, shared)
        event = {name: float(np.mean([term[name] for term in terms])) for name in terms[0]}
        if not math.isfinite(event["loss"]):
            done = self._done(stage, update)
            raise ArithmeticError(f"the loss is {event['loss']} at update {done}; try a smaller learning rate")
        if self.group is not None:
            self.group.sum_gradients(trainee.learning, trainee.objectives[stage].parameters())
        rate = trainee.optimizer.param_groups[0]["lr"]
        return event | {"gradient_norm": trainee.step(), "learning_rate": rate}

    def _add_gradients(
        self,
        trainee: Trainee,
        stage: int,
        update: int,
        rows: Rows,
        batches: Sequence[Batch],
        shared: Sequence[dict[Any, Any]],
    ) -> list[dict[str, float]]:
        """Adds the gradients of the batches of an update; what each loss was made of."""
        return [
            self._gradients.add(
                trainee,
                stage,
                rows,
                batch,
                noise=mix(self.seed, _STREAMS["noise"], stage, update, k),
                shared=shared[k],
                with_statistics=self._is_logged(stage, update),
            )
            for k, batch in enumerate(batches)
        ]

    def _make_piecewise(self, trainee: Trainee, done: int) -> None:
        """From this update on one part of a batch is in memory at a time; what it has added is forgotten."""
        trainee.piecewise = True
        trainee.optimizer.zero_grad(set_to_none=True)
        if self.source.device.type == "cuda":
            torch.cuda.empty_cache()
        self.log(trainee.name, {"update": done, "out_of_memory": True})
        _LOG.warning(
            "%s: memory ran out at update %d; from here on a batch is embedded part by part, twice",
            trainee.name,
            done,
        )

    def _layer_weights(self, trainee: Trainee, stage: int, update: int) -> dict[str, float]:
        """At every tenth update that is logged, and the last: what each layer contributes, on a few texts."""
        total = self.updates[stage]
        weighs = type(trainee.fusion).layer_shares is not Fusion.layer_shares
        if not weighs or (update % (10 * max(1, total // 100)) and update + 1 != total):
            return {}
        trainee.set_training(False, self.source.trained)
        with torch.no_grad():
            states = trainee.read(self.source, np.arange(min(_PROBE, len(self.source.lengths))), None)
            return {f"layer_weight.{layer}": share for layer, share in trainee.fusion.layer_shares(states).items()}

    # After an update: what is logged, chosen, written

    def _after(self, stage: int, update: int, stream: BatchStream) -> None:
        done, total = self._done(stage, update), sum(self.updates)
        self.progress(done, total)
        if self.selection is not None and self.selection.is_due(done, total):
            self.selection.look(self.trainees, self.source, done, self.log)
        if self.checkpoint is not None and time.monotonic() - self._written >= self.checkpoint_seconds:
            self.write_checkpoint(stage, update + 1, stream)

    def write_checkpoint(self, stage: int, updates: int, stream: BatchStream) -> None:
        """Writes the checkpoint after so many updates of a stage.

        Raises:
            InputError: if the disk refuses.
        """
        assert self.checkpoint is not None
        write_snapshot(
            self.checkpoint, self.trainees, self.source.trained, stage=stage, updates=updates, stream=stream
        )
        self._written = time.monotonic()

    def _finish(self) -> None:
        if self.selection is not None:
            self.selection.keep_best(self.trainees, self.source)
        for trainee in self.trainees:
            trainee.set_training(False, self.source.trained)
            if trainee.optimizer is not None:  # it failed before it began otherwise
                trainee.trained_parameters = sum(weight.numel() for weight in trainee.optimizer.optimizer.state)
            trainee.best, trainee.optimizer, trainee.accelerator = {}, None, None

    def forget(self) -> None:
        """Deletes the checkpoint, once the weights are safe elsewhere."""
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def _done(self, stage: int, update: int) -> int:
        return sum(self.updates[:stage]) + update + 1

    def _is_logged(self, stage: int, update: int) -> bool:
        """About a hundred updates of a stage are, the first and the last among them."""
        total = self.updates[stage]
        return update % max(1, total // 100) == 0 or update + 1 == total

    def _embed(self, numbers: Int[np.ndarray, " texts"]) -> Float[np.ndarray, "texts dim"]:
        """Vectors by the only method that is trained, for its sampler."""
        distinct, places = np.unique(numbers, return_inverse=True)
        for _, vectors in current_vectors(self.trainees, self.source, distinct):
            return vectors[places]
        failure = self.trainees[0].failure
        assert failure is not None
        raise failure

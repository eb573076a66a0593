"""What work costs on this machine: each constant measured once, on a little of the real thing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusebench.benchmarks.mteb_bridge import judge
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.methods.engine import SharedPass
from fusebench.methods.parts import Fusion
from fusebench.study.plan import Plan
from fusebench.study.train import Ready, Trainer, Wanted
from fusebench.study.training_plan import MethodTraining, TrainingPlan

_BATCHES = 8  # of a pass
_UPDATES = 3  # of a training
_SCORED = 20_000  # texts; larger tasks are scaled up from smaller ones of the same type


class Calibration:
    """Measures a constant when it is first asked for; runs that agree in what it depends on share it.

    Attributes:
        failures: of methods that failed while they were measured, by name: what they cost is not known.
    """

    def __init__(self) -> None:
        self.failures: dict[str, Exception] = {}
        self._passes: dict[object, float] = {}
        self._scorings: dict[str, float] = {}
        self._updates: dict[object, float] = {}

    def token_seconds(self, plan: Plan, fusions: Mapping[str, Fusion], texts: Sequence[str]) -> float:
        """Seconds a token of a pass for these fusions, the making of their vectors included.

        Args:
            plan: whose backbone and batches are used.
            fusions: by name, all with the same template.
            texts: of which some are drawn, a few batches of them.
        """
        backbone = plan.backbone
        key = (backbone.source.weights_sha256, str(backbone.device), backbone.dtype, backbone.limit, tuple(fusions))
        if key not in self._passes:
            shared = SharedPass(backbone, fusions, batch_tokens=plan.options.batch_tokens)
            order = np.random.default_rng(0).permutation(len(texts))
            few = [texts[place] for place in order[: 64 * _BATCHES]]
            lengths = [len(ids) for ids in backbone.tokenize(few, shared.template).ids]
            enough = int(np.searchsorted(np.cumsum(lengths), _BATCHES * shared.batch_tokens)) + 1
            shared.ensure(few[enough : enough + 8] or few[:1])  # warms up
            before = shared.statistics.tokens
            started = time.perf_counter()
            shared.ensure(few[:enough])
            for name in fusions:
                try:
                    shared.vectors(name)
                except Exception as error:  # a third-party part can raise anything
                    self.failures[name] = error
            self._passes[key] = (time.perf_counter() - started) / max(1, shared.statistics.tokens - before)
        return self._passes[key]

    def scoring_seconds(self, tasks: Sequence[LoadedTask], dim: int) -> dict[str, float]:
        """Seconds that scoring one method takes on each task, by its name, measured on vectors of chance.

        Args:
            tasks: scored themselves where they are not too large.
            dim: width of the vectors.
        """
        found: dict[str, float] = {}
        for kind in dict.fromkeys(task.spec.type for task in tasks):
            sizes = {task.spec.name: sum(1 for _ in task.inputs()) for task in tasks if task.spec.type == kind}
            own = sorted((task for task in tasks if task.spec.type == kind), key=lambda t: sizes[t.spec.name])
            small = [task for task in own if sizes[task.spec.name] <= _SCORED] or own[:1]
            for task in small:
                found[task.spec.name] = self._scored(task, dim)
            largest = small[-1].spec.name
            for task in own[len(small) :]:
                found[task.spec.name] = found[largest] * sizes[task.spec.name] / max(1, sizes[largest])
        return found

    def _scored(self, task: LoadedTask, dim: int) -> float:
        if (key := f"{task.spec.data_sha256} {dim}") not in self._scorings:
            generator = np.random.default_rng(0)
            judged = judge(
                task,
                lambda role, texts: generator.standard_normal((len(texts), dim), dtype=np.float32),
                name="chance",
                revision="none",
                experiment={},
            )
            self._scorings[key] = judged.seconds
        return self._scorings[key]

    def update_seconds(self, plan: Plan, wanted: Sequence[Wanted], live: bool) -> dict[Wanted, float]:
        """Seconds that an update of each training takes, of which a few are made in a folder of their own.

        Those of one regime share their states as in the run; a method whose training fails is left out and named in
        `failures`.

        Args:
            plan: of the run.
            wanted: the trainings, of one seed.
            live: whether the states of all training texts are too many to be stored.
        """
        keys = {one: _update_key(one, live) for one in wanted}
        missing = [one for one in wanted if keys[one] not in self._updates]
        with tempfile.TemporaryDirectory() as folder:
            small = _miniature(plan, missing, Path(folder), live)
            trainer = Trainer(small, lambda stage, done, total: None)
            for one, made in _trained(trainer, missing).items():
                self._updates[keys[one]] = made.training.seconds / made.training.updates
            self.failures.update({one.method.name: error for one, error in trainer.failures.items()})
        return {one: self._updates[key] for one, key in keys.items() if key in self._updates}


def _update_key(one: Wanted, live: bool) -> object:
    """All that the time of an update depends on."""
    spec, train = one.spec, one.spec.train
    assert train is not None
    recipe = (train.batch_size, train.accumulate, train.chunk, train.precision)
    rows = tuple(rows.sha256 for rows in train.rows)
    return spec.backbone.weights_sha256, spec.max_length, spec.dtype, spec.regime, one.method.name, recipe, rows, live


def _trained(trainer: Trainer, wanted: Sequence[Wanted]) -> dict[Wanted, Ready]:
    """The same trainings, as short as the trainer's plan has them."""
    short = {replace(one, plan=trainer.plan.training.methods[one.method]): one for one in wanted}
    found = trainer.frozen([one for one in short if one.spec.regime == "frozen"])
    for one in short:
        if one.spec.regime == "finetune" and (made := trainer.finetuned(one, "")) is not None:
            found[one] = made
    return {short[one]: made for one, made in found.items()}


def _miniature(plan: Plan, wanted: Sequence[Wanted], folder: Path, live: bool) -> Plan:
    """The plan with so few rows and updates that it only shows what one of them costs."""
    asked = plan.options.training
    steps = _UPDATES * max((len(one.plan.stages) for one in wanted if one.plan), default=1)
    recipe = replace(asked.recipe, epochs=None, steps=steps)
    room = 0.0 if live else asked.state_cache_gb
    training = replace(asked, recipe=recipe, dev=None, trials=1, track=(), state_cache_gb=room)
    rows = steps * recipe.batch_size * recipe.accumulate
    methods = {
        one.method: MethodTraining(
            one.plan.spec, tuple(stage.without(range(rows, stage.spec.count)) for stage in one.plan.stages)
        )
        for one in wanted
        if one.plan
    }
    options = replace(plan.options, out=folder, training=training, rerun=True)
    return replace(plan, options=options, training=TrainingPlan(methods))

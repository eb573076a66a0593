"""A run that was made before, made again: the same, or with other batches, threads, order of texts and seeds."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fusebench.benchmarks.baseline import Key, Rerun
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.run_spec import RunSpec
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.task_data import Role
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.methods.recipe import Recipe
from fusebench.study import text_sets
from fusebench.study.options import Options, TrainingOptions
from fusebench.study.plan import Plan, make_plan
from fusebench.study.run import Progress, run


@dataclass(frozen=True)
class Places:
    """Where things lie that a run knows by name only; None and nothing: under their names.

    Attributes:
        backbone: a folder.
        fit: a file.
        train: files, as many as the run has sets.
        weights: folder of a saved method, in the place of the fusion and its training.
    """

    data_dir: Path | None = None
    backbone: str | None = None
    fit: str | None = None
    train: tuple[str, ...] = ()
    dev: str | None = None
    weights: Path | None = None


def options_of(asked: RunSpec, places: Places) -> Options:
    """The options that make this run again."""
    return Options(
        methods=asked.methods,
        backbone=places.backbone or asked.backbone,
        tasks=asked.tasks,
        data_dir=places.data_dir,
        seeds=asked.seeds,
        fit=places.fit or asked.fit or text_sets.DEFAULT,
        training=_training(asked, places),
        prompts=asked.prompts,
        device=asked.device,
        dtype=asked.dtype,
        max_length=asked.max_length,
        batch_tokens=asked.batch_tokens,
        limit=asked.limit,
        allow_empty=True,  # a run with empty texts was allowed to, or there would be no record
        remote_code=asked.remote_code,
    )


def _training(asked: RunSpec, places: Places) -> TrainingOptions:
    train = asked.train
    if train is None or asked.regime == "training-free":
        return TrainingOptions()
    taken = {"data", "limit", "dev", "dev_every", "trials"}
    return TrainingOptions(
        regime=asked.regime,
        data=places.train or train.data,
        limit=train.limit,
        recipe=Recipe(**train.model_dump(exclude=taken)),
        dev=places.dev or train.dev,
        dev_every=train.dev_every,
        trials=train.trials,
        drop_leaks=True,  # changes nothing where nothing leaks; where something did, the run dropped it
    )


@dataclass(frozen=True)
class Made:
    """What a rerun gave.

    Attributes:
        failures: why cells have no record.
    """

    plan: Plan
    records: tuple[Record, ...]
    failures: dict[Key, str]


def make_again(
    options: Options, change: Rerun | None = None, progress: Progress = lambda stage, done, total: None
) -> Made:
    """Plans and runs into an empty folder that is gone afterwards; weights are trained anew.

    Raises:
        InputError: if anything that the run names is not there.
    """
    if change is not None:
        seeds = tuple(seed + change.seed_offset for seed in options.seeds)
        options = replace(options, batch_tokens=change.batch_tokens, seeds=seeds)
    with tempfile.TemporaryDirectory(prefix="fusebench-rerun-") as folder:
        plan = make_plan(replace(options, out=Path(folder)))
        if change is not None:
            plan = _in_order(plan, change.order)
        store = Store(Path(folder))
        with _threads(change.threads if change else None):
            outcome = run(plan, store, progress)
        records = tuple(store.records())
    return Made(plan, records, _failures(plan, outcome.failures))


def _failures(plan: Plan, sentences: list[str]) -> dict[Key, str]:
    found = {}
    for cell in plan.cells:
        start = f"{cell.method.name} on {cell.task.spec.name}: "
        if said := next((one for one in sentences if one.startswith(start)), None):
            found[cell.method.name, cell.task.spec.name, cell.seed] = said.removeprefix(start)
    return found


@dataclass(frozen=True)
class _InOrder(LoadedTask):
    """A task whose texts go through the backbone in another order; mteb sees no difference."""

    order: int = 0

    def inputs(self) -> Iterator[tuple[Role, str]]:
        """The same texts, permuted."""
        inputs = list(LoadedTask.inputs(self))
        for place in np.random.default_rng(self.order).permutation(len(inputs)):
            yield inputs[place]


def _in_order(plan: Plan, order: int) -> Plan:
    tasks = {
        task.spec.name: _InOrder(task.task, task.spec, task.limit, task.empty_texts, order) for task in plan.tasks
    }
    cells = tuple(replace(cell, task=tasks[cell.task.spec.name]) for cell in plan.cells)
    return replace(plan, tasks=tuple(tasks.values()), cells=cells)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

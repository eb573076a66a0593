"""What a worker does with a unit: it makes the plan itself, and computes the very cells it was asked for or none."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch

from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.engine import PassStatistics
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import load_plugins
from fusebench.study.damage import quarantine_trainings
from fusebench.study.environment import SOFTWARE, versions
from fusebench.study.options import Options
from fusebench.study.plan import Cell, Plan, make_plan
from fusebench.study.run import (
    Outcome,
    compute,
    failure_of,
    fusion_of,
    groups_of,
    pass_texts,
    wanted_of,
)
from fusebench.study.shards import MergedPass, PassIndex, Shard, encode_shard
from fusebench.study.train import Trainer
from fusebench.study.training_locks import trainings_locked
from fusebench.study.units import Unit, cells_of

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What all units of a run have in common.

    Attributes:
        folder: that relative paths in the options start from.
        threads: of a worker.
    """

    options: Options
    plugins: tuple[Path, ...]
    folder: Path
    threads: int


@dataclass(frozen=True)
class Report:
    """What became of a unit.

    Attributes:
        failed: cells whose training failed.
        statistics: of an encoded shard.
        refusal: why the unit cannot be done at all, however often it is tried.
    """

    outcome: Outcome = field(default_factory=Outcome)
    failed: tuple[str, ...] = ()
    statistics: PassStatistics | None = None
    refusal: str | None = None


def work(job: Job, unit: Unit, index: PassIndex | None = None, *shards: Shard) -> tuple[Report, Shard | None]:
    """Does one unit; records and weights go to the results folder, a shard is returned.

    Args:
        index: of the pass, for encoding and scoring.
        shards: all of them, for scoring.
    """
    try:
        plan, cells = _entered(job, unit)
        if unit.stage == "training":
            return _train(plan, cells), None
        if unit.stage == "fine-tuning":
            return _fine_tune(plan, unit, cells), None
        assert index is not None
        if unit.stage == "encoding":
            shard = _encode(plan, unit, cells, index)
            return Report(statistics=shard.statistics), shard
        return _score(plan, unit, cells, index, shards), None
    except InputError as error:
        return Report(refusal=str(error)), None


def _entered(job: Job, unit: Unit) -> tuple[Plan, list[Cell]]:
    """The plan and the unit's cells in it, this process set up for them.

    Raises:
        InputError: if something that the plan names is not here, or is not what it was for the driver.
    """
    try:
        os.chdir(job.folder)
    except OSError as error:
        raise InputError(
            f"a worker has no folder {job.folder}: start the command in a folder that all machines share."
        ) from error
    torch.set_num_threads(job.threads)
    plan = _plan_of(job)
    try:
        return plan, cells_of(plan, unit.spec_ids)
    except KeyError as error:
        here = ", ".join(f"{name} {version}" for name, version in versions(SOFTWARE).items())
        raise InputError(
            f"a worker would compute other cells than the ones asked for: its FuseBench, packages ({here}), "
            "data or weights are not those of the machine that gave the command."
        ) from error


@functools.lru_cache(maxsize=1)  # a worker mostly serves one run, and a plan holds a backbone
def _plan_of(job: Job) -> Plan:
    load_plugins(job.plugins)
    return make_plan(job.options)


def _train(plan: Plan, cells: list[Cell]) -> Report:
    """Frozen methods; their weights go to the results folder."""
    trainer, failed, outcome = Trainer(plan, _silent), [], Outcome()
    groups = groups_of(cells)
    wanted = {group.fusion_key: wanted_of(plan, group) for group in groups}
    _with_locks(plan, cells, lambda: trainer.frozen(list(wanted.values())))
    for group in groups:
        if (error := trainer.failures.get(wanted[group.fusion_key])) is not None:
            failed += [cell.spec.spec_id for cell in group.cells]
            outcome.failures += [failure_of(cell, error) for cell in group.cells]
    return Report(outcome, tuple(failed))


def _fine_tune(plan: Plan, unit: Unit, cells: list[Cell]) -> Report:
    """One backbone that learns along: its training, its pass and its scores."""
    store = Store(plan.options.out)
    missing = cells if plan.options.rerun else _missing(cells, store)
    return Report(_with_locks(plan, missing, lambda: compute(plan, missing, store, tasks=unit.tasks)))


def _encode(plan: Plan, unit: Unit, cells: list[Cell], index: PassIndex) -> Shard:
    """One shard of the pass that all frozen methods of one template read."""
    groups = groups_of(cells)
    trained = {group.fusion_key: wanted_of(plan, group) for group in groups if group.method.trained}
    ready = Trainer(_with_weights(plan), _silent).frozen(list(trained.values()))
    fusions = {
        group.fusion_key: fusion_of(plan, group, ready[trained[group.fusion_key]] if group.method.trained else None)
        for group in groups
    }
    texts = index.texts_of(unit.shard, list(dict.fromkeys(_texts(plan, unit))))
    return encode_shard(plan.backbone, fusions, texts, batch_tokens=plan.options.batch_tokens)


def _score(plan: Plan, unit: Unit, cells: list[Cell], index: PassIndex, shards: Sequence[Shard]) -> Report:
    """Scores from finished shards; the pass is counted once, by who has planned it."""

    def merged(
        plan: Plan,
        backbone: Backbone,
        fusions: Mapping[str, Fusion],
        texts: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> MergedPass:
        return MergedPass(backbone, fusions, texts, index, shards, plan.options.batch_tokens)

    store = Store(plan.options.out)
    missing = cells if plan.options.rerun else _missing(cells, store)
    outcome = compute(_with_weights(plan), missing, store, tasks=unit.tasks, make_pass=merged)
    return Report(replace(outcome, passes=[], methods=0))


def _with_weights(plan: Plan) -> Plan:
    """The same plan after its trainings, which are not to be made once more."""
    return replace(plan, options=replace(plan.options, rerun=False))


def _missing(cells: list[Cell], store: Store) -> list[Cell]:
    """Those that an earlier try of the unit has not recorded."""
    return [cell for cell in cells if store.read(cell.spec.spec_id) is None]


def _texts(plan: Plan, unit: Unit) -> list[str]:
    return pass_texts(plan, [task for task in plan.tasks if task.spec.name in unit.tasks])


def _with_locks(plan: Plan, cells: list[Cell], compute_them: Callable[[], T]) -> T:
    """Trains while no other run or worker trains the same; what is damaged is moved away before."""
    with trainings_locked(replace(plan, cells=tuple(cells)), ()) as to_train:
        quarantine_trainings(to_train, Store(plan.options.out))
        return compute_them()


def _silent(stage: str, done: int, total: int) -> None:
    """A worker has no screen."""

"""Sends the units of a plan to a pool of workers and follows up what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fusebench.errors import InputError
from fusebench.methods.engine import PassStatistics
from fusebench.study.plan import Cell, Plan
from fusebench.study.run import Group, Outcome, Progress, fusion_of, groups_of, pass_texts
from fusebench.study.shards import PassIndex, index_pass, statistics_of
from fusebench.study.unit_work import Report
from fusebench.study.units import Unit, encoding_units, fine_tuning_units, scoring_units, training_units

# Scoring units for each place of a worker: a few, so that the last ones to finish are short.
_PARTS_A_SLOT = 4


@dataclass(frozen=True)
class Returned:
    """A unit that came back.

    Attributes:
        report: None if it was lost, however often it was tried.
        shard: a handle of what was encoded.
        loss: why there is no report.
    """

    unit: Unit
    report: Report | None
    shard: Any = None
    loss: str = ""


class Pool(Protocol):
    """Workers that do units; what is lost with a worker is tried again, a few times."""

    @property
    def slots(self) -> int:
        """Units that run at a time."""
        ...

    def share(self, value: Any) -> Any:
        """A handle that units take for the value."""
        ...

    def submit(self, unit: Unit, *inputs: Any) -> None:
        """Puts a unit into the queue, with handles of what it reads."""
        ...

    def returned(self) -> list[Returned]:
        """Units that have come back since the last call; waits a while if there are none."""
        ...


@dataclass
class _Pass:
    """A template's pass under way."""

    groups: list[Group]
    tasks: tuple[str, ...]
    index: PassIndex
    index_handle: Any
    shards: dict[int, Any] = field(default_factory=dict)
    statistics: list[PassStatistics] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.shards) == len(self.index.shards)


def compute_on(pool: Pool, plan: Plan, cells: Sequence[Cell], progress: Progress) -> Outcome:
    """Computes these cells on a pool's workers, which write the records.

    A unit that is lost again and again is divided, until what cannot be done is alone; that is a failure in the
    outcome, and everything else goes on.
    """
    dispatch = _Dispatch(pool, plan, cells, progress)
    dispatch.start()
    while dispatch.waiting:
        for returned in pool.returned():
            dispatch.follow_up(returned)
    return dispatch.outcome


class _Dispatch:
    """Units under way: trainings of frozen methods, then shards of their passes, then scores; fine-tuning beside."""

    def __init__(self, pool: Pool, plan: Plan, cells: Sequence[Cell], progress: Progress) -> None:
        self.pool, self.plan, self.progress = pool, plan, progress
        self.cells = {cell.spec.spec_id: cell for cell in cells}
        groups = groups_of(cells)
        self.tuned = [group for group in groups if group.cells[0].spec.regime == "finetune"]
        self.frozen = [group for group in groups if group.cells[0].spec.regime != "finetune"]
        self.outcome = Outcome()
        self.passes: dict[str | None, _Pass] = {}
        self.failed: set[str] = set()
        self.settled: set[str] = set()  # cells that are scored or failed
        self.waiting = 0
        self.trainings, self.trained = 0, 0

    def start(self) -> None:
        """Submits what waits for nothing."""
        trainings = training_units(self.plan, self.frozen)
        self.trainings = len(trainings)
        self._submit(trainings)
        if not trainings:
            self._encode()
        self._submit(fine_tuning_units(self.tuned))

    def follow_up(self, returned: Returned) -> None:
        """Takes note of a unit and submits what has waited for it."""
        self.waiting -= 1
        unit, report = returned.unit, returned.report
        if report is None and (halves := unit.halves()):
            self.trainings += unit.stage == "training"
            self._submit(halves)
            return
        refusal = returned.loss if report is None else report.refusal
        if refusal is not None:
            self._fail(unit.spec_ids, refusal)
        elif report is not None:
            self._merge(report)
        if unit.stage == "training":
            self.trained += 1
            self.progress("training", self.trained, self.trainings)
            if self.trained == self.trainings:
                self._encode()
        elif unit.stage == "encoding":
            self._encoded(unit, returned)
        else:
            self._settle(unit.spec_ids)

    def _submit(self, units: Iterable[Unit]) -> None:
        for unit in units:
            self.waiting += 1
            self.pool.submit(unit, *self._inputs_of(unit))

    def _inputs_of(self, unit: Unit) -> tuple[Any, ...]:
        """For encoding the index of the pass, for scoring its shards too, in order."""
        if unit.stage in ("training", "fine-tuning"):
            return ()
        own = self.passes[unit.template]
        shards = [own.shards[number] for number in sorted(own.shards)] if unit.stage == "scoring" else []
        return own.index_handle, *shards

    def _encode(self) -> None:
        """Plans the passes of the frozen methods that have their weights, one a template."""
        able = [group for group in self.frozen if not self.failed.intersection(_ids(group))]
        asked = {cell.task.spec.name for group in able for cell in group.cells}
        tasks = [task for task in self.plan.tasks if task.spec.name in asked]
        by_template: dict[str | None, list[Group]] = {}
        for group in able:
            by_template.setdefault(fusion_of(self.plan, group, None).template, []).append(group)
        texts = pass_texts(self.plan, tasks) if able else []
        names = tuple(task.spec.name for task in tasks)
        backbone, budget = self.plan.backbone, self.plan.options.batch_tokens
        for template, groups in by_template.items():
            try:
                index = index_pass(backbone, texts, template, batch_tokens=budget, workers=self.pool.slots)
            except InputError as error:
                self._fail([spec_id for group in groups for spec_id in _ids(group)], str(error))
                continue
            self.passes[template] = _Pass(groups, names, index, self.pool.share(index))
            self._submit(encoding_units(groups, names, template, len(index.shards)))

    def _encoded(self, unit: Unit, returned: Returned) -> None:
        of_template = self.passes[unit.template]
        if returned.report is None or returned.report.statistics is None:
            return  # the pass stays incomplete, and its cells have failed
        of_template.shards[unit.shard] = returned.shard
        of_template.statistics.append(returned.report.statistics)
        self.progress("encoding", *self._shards())
        if of_template.complete:
            self.outcome.passes.append(statistics_of(of_template.index, of_template.statistics))
            self.outcome.methods += len(of_template.groups)
            parts = _PARTS_A_SLOT * self.pool.slots
            self._submit(scoring_units(of_template.groups, of_template.tasks, unit.template, parts))

    def _shards(self) -> tuple[int, int]:
        found = self.passes.values()
        return sum(len(one.shards) for one in found), sum(len(one.index.shards) for one in found)

    def _merge(self, report: Report) -> None:
        found = report.outcome
        self.failed.update(report.failed)
        self._settle(report.failed)
        self.outcome.finished += found.finished
        self.outcome.methods += found.methods
        self.outcome.failures += found.failures
        self.outcome.passes += found.passes
        self.outcome.scoring_seconds += found.scoring_seconds
        self.outcome.trainings += found.trainings

    def _fail(self, spec_ids: Sequence[str], reason: str) -> None:
        for spec_id in spec_ids:
            if spec_id not in self.failed:
                cell = self.cells[spec_id]
                self.outcome.failures.append(f"{cell.method.name} on {cell.task.spec.name}: {reason}")
        self.failed.update(spec_ids)
        self._settle(spec_ids)

    def _settle(self, spec_ids: Sequence[str]) -> None:
        if not spec_ids:
            return
        self.settled.update(spec_ids)
        self.progress("cells", len(self.settled), len(self.cells))


def _ids(group: Group) -> list[str]:
    return [cell.spec.spec_id for cell in group.cells]

"""`--dry-run`: the cells of one run or of a whole sweep, and what they will take."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import reduce

from rich.table import Table

from fusebench.benchmarks.store import Store
from fusebench.study.calibration import Calibration
from fusebench.study.estimate import Estimate, estimate
from fusebench.study.plan import Plan
from fusebench.study.screen import Screen

_MEASURED = (
    "seconds are estimates from what a few batches, updates and scorings took on this machine just now; memory is "
    "the process's largest size then and what is kept of texts; waiting and the testing of boards are left out."
)


class DryRun:
    """Counts and estimates run after run; a cell that an earlier one makes is there for the later ones.

    Args:
        store: where finished cells lie; nothing is written there.
        screen: takes the cells: identity, task, method, whether it is there.
        messages: takes the table.
    """

    def __init__(self, store: Store, screen: Screen, messages: Screen) -> None:
        self._finished = set(store.finished())
        self._planned: set[str] = set()
        self._screen, self._messages = screen, messages
        self._calibration = Calibration()
        self._estimates: list[Estimate] = []

    def add(self, plan: Plan, *, name: str = "", loading_seconds: float) -> None:
        """Prints the cells of one more run and measures what its work costs."""
        there = self._planned if plan.options.rerun else self._planned | self._finished
        for cell in plan.cells:
            state = "there" if cell.spec.spec_id in there else "to do"
            line = f"{cell.spec.spec_id}  {cell.task.spec.name}  {cell.method.name}  {state}"
            self._screen.print(line, soft_wrap=True, markup=False)
        found = estimate(plan, there, self._calibration, name=name, loading_seconds=loading_seconds)
        self._estimates.append(found)
        self._planned |= {cell.spec.spec_id for cell in plan.cells}

    def show(self) -> None:
        """Prints the table."""
        self._messages.print(_table(self._estimates))
        for name, error in self._calibration.failures.items():
            self._messages.print(f"what {name} costs is not known, it failed: {error}", markup=False, soft_wrap=True)
        self._messages.print(_MEASURED, highlight=False, markup=False, soft_wrap=True)


def _table(estimates: Sequence[Estimate]) -> Table:
    table = Table(title="Estimate")
    table.add_column("run")
    for heading in ("cells", "there", "passes", "trainings", "texts", "tokens"):
        table.add_column(heading, justify="right")
    for heading in ("passing", "training", "scoring", "loading", "in all", "memory"):
        table.add_column(heading, justify="right")
    for one in estimates:
        table.add_row(*_row(one))
    if len(estimates) > 1:
        table.add_section()
        table.add_row(*_row(dataclasses.replace(reduce(_added, estimates), name="all")))
    return table


def _row(one: Estimate) -> list[str]:
    counts = (one.cells, one.there, one.passes, one.trainings, one.texts, one.tokens)
    seconds = (one.pass_seconds, one.training_seconds, one.scoring_seconds, one.loading_seconds, one.seconds)
    return [one.name, *(f"{count:,}" for count in counts), *map(duration, seconds), f"{one.memory_gb:.1f} GB"]


def _added(a: Estimate, b: Estimate) -> Estimate:
    """Both one after the other: everything adds up, but of memory the larger counts."""
    summed = {
        part.name: getattr(a, part.name) + getattr(b, part.name)
        for part in dataclasses.fields(a)
        if part.name != "name"
    }
    return Estimate(name="", **{**summed, "memory_gb": max(a.memory_gb, b.memory_gb)})


def duration(seconds: float) -> str:
    """In the unit that people would say it in."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""The rows of a board: the records of one method, a task a column, and which row equals which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean

from fusebench.benchmarks.record import Record, TextSetSpec


def age(record: Record) -> tuple[datetime, str]:
    """Sorts records from old to new; equal times by id."""
    created = datetime.fromisoformat(record.environment.created)
    return (created if created.tzinfo else created.replace(tzinfo=UTC)), record.spec_id


@dataclass(frozen=True)
class Row:
    """One method with one set of texts that its transforms were fitted on; `cells` has a record per seed."""

    method: str
    fit: TextSetSpec | None
    cells: dict[str, list[Record]]

    @cached_property
    def scores(self) -> dict[str, float]:
        """Mean over seeds of each task, x100."""
        return {task: 100 * fmean(r.main_score for r in seeds) for task, seeds in self.cells.items()}

    @cached_property
    def key(self) -> tuple[str, TextSetSpec | None]:
        """What makes the row one row of its board."""
        return self.method, self.fit

    @cached_property
    def records(self) -> list[Record]:
        """All records, old to new."""
        return sorted((record for seeds in self.cells.values() for record in seeds), key=age)

    @property
    def equal_to(self) -> str | None:
        """What the newest record says."""
        return self.records[-1].equal_to

    @property
    def costs(self) -> list[str]:
        """Dimensions, parameters added, seconds to encode the tasks' texts with this method alone."""
        seconds = sum(
            fmean(r.cost.pass_seconds + r.cost.fusion_seconds for r in self.cells[task])
            for task in sorted(self.cells)
        )
        dims, added = (r.out_dim for r in self.records), (r.added_parameters for r in self.records)
        return [_span(dims), _span(added), f"{seconds:.2f}"]

    @property
    def seeds(self) -> str:
        """How many seeds, a range where tasks differ, empty where nothing is random."""
        counts = [sum(r.spec.seed is not None for r in seeds) for seeds in self.cells.values()]
        return _span(counts) if any(counts) else ""


def method_rows(records: list[Record]) -> list[Row]:
    """The rows by method and fit; of two records of one cell the newest counts."""
    newest: dict[tuple[str, TextSetSpec | None, str, int | None], Record] = {}
    for record in sorted(records, key=age):
        spec = record.spec
        newest[spec.method.name, spec.fit, spec.task.name, spec.seed] = record
    rows: dict[tuple[str, TextSetSpec | None], Row] = {}
    for (method, fit, task, _), record in newest.items():
        row = rows.setdefault((method, fit), Row(method, fit, {}))
        row.cells.setdefault(task, []).append(record)
    return sorted(rows.values(), key=lambda row: (row.method, repr(row.fit)))


def twin(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row that `row` equals under cosine by construction, if it is there and stands on its own."""
    twins = [other for other in rows if other.method == row.equal_to and other.equal_to is None]
    same_fit = [other for other in twins if other.fit == row.fit]
    return next(iter(same_fit or twins), None)


def row_labels(rows: list[Row]) -> list[str]:
    """What the method column says: the fit set too where rows differ in it."""
    fits = {row.fit for row in rows if row.fit}
    if len(fits) < 2:
        return [row.method for row in rows]
    ambiguous = len({fit.name for fit in fits}) < len(fits)
    names = {fit: f"{fit.name} {fit.sha256[:8]}" if ambiguous else fit.name for fit in fits}
    return [f"{row.method} [fit: {names[row.fit]}]" if row.fit else row.method for row in rows]


def _span(values: Iterable[int]) -> str:
    low, high = min(held := set(values)), max(held)
    return str(low) if low == high else f"{low}-{high}"

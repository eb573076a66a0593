"""The score gate: current scores against a baseline, two-sided, cell by cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fusebench.benchmarks.baseline import Baseline, Cell, Key
from fusebench.benchmarks.record import Record

Outcome = Literal["same", "lower", "higher", "missing", "other inputs", "new"]


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one cell.

    Attributes:
        cell: of the baseline; None for a cell that it does not have.
        score: now; None when it is missing.
        why: in words, where the numbers do not say it.
    """

    key: Key
    outcome: Outcome
    cell: Cell | None
    score: float | None
    why: str = ""

    @property
    def passed(self) -> bool:
        """A new cell has nothing to be compared with, so it cannot fail."""
        return self.outcome in ("same", "new")

    @property
    def change(self) -> float | None:
        """Now minus baseline."""
        return None if self.cell is None or self.score is None else self.score - self.cell.score

    @property
    def label(self) -> str:
        """Method, and the seed if there is one."""
        method, _, seed = self.key
        return method if seed is None else f"{method}, seed {seed}"


@dataclass(frozen=True)
class GateReport:
    """All verdicts: the baseline's cells in its order, then the new ones."""

    baseline: Baseline
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether no cell failed."""
        return all(verdict.passed for verdict in self.verdicts)

    def count(self, *outcomes: Outcome) -> int:
        """Cells with one of these outcomes."""
        return sum(verdict.outcome in outcomes for verdict in self.verdicts)


def compare(baseline: Baseline, records: Iterable[Record], failures: Mapping[Key, str] | None = None) -> GateReport:
    """The verdict on each cell.

    Args:
        baseline: what the scores should be.
        records: current ones; the newest counts where a cell has several.
        failures: why a cell has no record.
    """
    current: dict[Key, Record] = {}
    for record in sorted(records, key=lambda record: record.environment.created):
        current[key_of(record)] = record
    verdicts = [_verdict(cell, current.get(cell.key), failures or {}) for cell in baseline.cells]
    known = {cell.key for cell in baseline.cells}
    new = (Verdict(key, "new", None, record.main_score) for key, record in current.items() if key not in known)
    return GateReport(baseline, (*verdicts, *sorted(new, key=lambda verdict: (verdict.key[1], verdict.label))))


def key_of(record: Record) -> Key:
    """What identifies the cell of a record in a baseline."""
    return record.spec.method.name, record.spec.task.name, record.spec.seed


def _verdict(cell: Cell, record: Record | None, failures: Mapping[Key, str]) -> Verdict:
    if record is None:
        return Verdict(cell.key, "missing", cell, None, failures.get(cell.key, "no record of it now"))
    score = record.main_score
    if changed := _changed_inputs(cell, record):
        return Verdict(cell.key, "other inputs", cell, score, changed)
    if abs(score - cell.score) <= cell.tolerance:
        return Verdict(cell.key, "same", cell, score)
    return Verdict(cell.key, "higher" if score > cell.score else "lower", cell, score)


def _changed_inputs(cell: Cell, record: Record) -> str:
    """Which inputs are others than the baseline's, so that the scores say nothing of the code."""
    pairs = {
        "the task's data": (cell.data_sha256, record.spec.task.data_sha256),
        "the backbone's weights": (cell.weights_sha256, record.spec.backbone.weights_sha256),
        "the metric": (cell.metric, record.spec.task.metric),
    }
    return "; ".join(f"{what}: {a[:12]} then, {b[:12]} now" for what, (a, b) in pairs.items() if a != b)

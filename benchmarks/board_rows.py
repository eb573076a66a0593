"""The rows of a board: the records of one method, a task a column, and which row equals which."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from fusebench.benchmarks.board_table import Estimate, estimate
from fusebench.benchmarks.board_words import span
from fusebench.benchmarks.record import Record, RowSetSpec, Spec, TextSetSpec, Training


def age(record: Record) -> tuple[datetime, str]:
    """Sorts records from old to new; equal times by id."""
    created = datetime.fromisoformat(record.environment.created)
    return (created if created.tzinfo else created.replace(tzinfo=UTC)), record.spec_id


def training_free(spec: Spec) -> bool:
    """Whether no weight was learned: such a row may stand beside rows of any training."""
    return spec.regime == "training-free" and spec.train is None and spec.weights_sha256 is None


class RowKey(NamedTuple):
    """What makes a row one row of its board."""

    method: str
    fit: TextSetSpec | None
    trained_on: tuple[RowSetSpec, ...]
    weights_sha256: str | None  # of saved weights

    @classmethod
    def of(cls, spec: Spec) -> RowKey:
        """The key of the row that a cell belongs to."""
        return cls(spec.method.name, spec.fit, spec.train.rows if spec.train else (), spec.weights_sha256)


@dataclass(frozen=True)
class Row:
    """One method, fitted and trained on one choice of texts; `cells` has a record per seed."""

    key: RowKey
    cells: dict[str, list[Record]]

    @property
    def method(self) -> str:
        """The canonical sentence."""
        return self.key.method

    @property
    def trained(self) -> bool:
        """Whether weights were learned."""
        return not training_free(self.records[0].spec)

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Mean and spread over seeds of each task, x100."""
        return {task: estimate([100 * r.main_score for r in seeds]) for task, seeds in self.cells.items()}

    @cached_property
    def scores(self) -> dict[str, float]:
        """Mean over seeds of each task, x100."""
        return {task: held.mean for task, held in self.estimates.items()}

    @cached_property
    def scores_by_seed(self) -> list[dict[str, float]]:
        """The scores of each seed by task, x100."""
        by_seed: dict[int | None, dict[str, float]] = defaultdict(dict)
        for task, seeds in self.cells.items():
            for record in seeds:
                by_seed[record.spec.seed][task] = 100 * record.main_score
        return list(by_seed.values())

    @cached_property
    def records(self) -> list[Record]:
        """All records, old to new."""
        return sorted((record for seeds in self.cells.values() for record in seeds), key=age)

    @cached_property
    def trainings(self) -> list[Training]:
        """What each seed's training took, by seed, as its newest record says; a seed's tasks share its weights."""
        newest = {record.spec.seed: record.training for record in self.records}
        by_seed = sorted(newest.items(), key=lambda item: -1 if item[0] is None else item[0])
        return [training for _, training in by_seed if training is not None]

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
        return [span(dims), span(added), f"{seconds:.2f}"]

    @property
    def seeds(self) -> str:
        """How many seeds, a range where tasks differ, empty where nothing is random."""
        counts = [sum(r.spec.seed is not None for r in seeds) for seeds in self.cells.values()]
        return span(counts) if any(counts) else ""


def method_rows(records: list[Record]) -> list[Row]:
    """The rows by key; of two records of one cell the newest counts."""
    newest: dict[tuple[RowKey, str, int | None], Record] = {}
    for record in sorted(records, key=age):
        newest[RowKey.of(record.spec), record.spec.task.name, record.spec.seed] = record
    rows: dict[RowKey, Row] = {}
    for (key, task, _), record in newest.items():
        rows.setdefault(key, Row(key, {})).cells.setdefault(task, []).append(record)
    return sorted(rows.values(), key=lambda row: (row.method, repr(row.key)))


def twin(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row that `row` equals under cosine by construction, if it is there and stands on its own."""
    twins = [other for other in rows if other.method == row.equal_to and other.equal_to is None]
    alike = [other for other in twins if other.key[2:] == row.key[2:]]
    same_fit = [other for other in alike if other.key.fit == row.key.fit]
    return next(iter(same_fit or alike), None)


def row_labels(rows: list[Row]) -> list[str]:
    """What the method column says: saved weights, and fit and training sets where rows differ in them."""
    fits = _fit_names(rows)
    alike = Counter(_but_for_rows(row.key) for row in rows)
    described = {(_but_for_rows(row.key), _rows_name(row.key)) for row in rows}
    hashed = {rest for rest, count in alike.items() if count > sum(held == rest for held, _ in described)}
    labels = []
    for row in rows:
        key, label = row.key, row.method
        if key.weights_sha256 is not None:
            label += f" (saved {key.weights_sha256[:8]})"
        if key.fit in fits:
            label += f" [fit: {fits[key.fit]}]"
        if alike[_but_for_rows(key)] > 1:
            label += f" [train: {_rows_name(key, hashed=_but_for_rows(key) in hashed)}]"
        labels.append(label)
    return labels


def _fit_names(rows: list[Row]) -> dict[TextSetSpec | None, str]:
    fits = {row.key.fit for row in rows if row.key.fit}
    if len(fits) < 2:
        return {}
    ambiguous = len({fit.name for fit in fits}) < len(fits)
    return {fit: f"{fit.name} {fit.sha256[:8]}" if ambiguous else fit.name for fit in fits}


def _but_for_rows(key: RowKey) -> RowKey:
    return key._replace(trained_on=())


def _rows_name(key: RowKey, *, hashed: bool = False) -> str:
    parts = [f"{one.name} {one.kind}" + f" {one.sha256[:8]}" * hashed for one in key.trained_on]
    return ", ".join(parts) or "unknown"

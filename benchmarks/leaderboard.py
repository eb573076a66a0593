"""Boards as a pure function of records: rows, their order, their averages, their ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

import pandas as pd

from fusebench.benchmarks.atomic import slug
from fusebench.benchmarks.board_caption import board_caption
from fusebench.benchmarks.board_groups import aspects, board_groups, leading_spec, spec_ids
from fusebench.benchmarks.board_overlap import overlap_table
from fusebench.benchmarks.board_rows import Row, method_rows, row_labels, training_free, twin
from fusebench.benchmarks.board_significance import tested_cells
from fusebench.benchmarks.board_table import MISSING, Estimate, Table, estimate
from fusebench.benchmarks.board_tests import BoardTests, identity_of
from fusebench.benchmarks.board_training import training_table
from fusebench.benchmarks.record import Record, Spec, TaskType
from fusebench.benchmarks.store import AskedSuite


@dataclass(frozen=True, eq=False)
class Board:
    """Rows that may be compared: one backbone, one suite, one setting, one training beside training-free rows.

    `scores` are x100. `training` says what training took, `overlap` has the scores without test pairs that
    training saw; None where there is nothing to say. `folder` and `suite` are file names; `aspects` are words
    that tell boards of the same backbone and suite apart, the last of them a hash of all that they depend on.
    `spec_ids` are the records behind it, `tests` what paired tests say of them, or None.
    """

    title: str
    backbone: str
    caption: tuple[str, ...]
    scores: Table
    training: Table | None
    overlap: Table | None
    tasks: tuple[str, ...]
    averages: tuple[str, ...]
    folder: str
    suite: str
    aspects: tuple[str, ...]
    spec_ids: frozenset[str]
    tests: BoardTests | None = None

    @property
    def table(self) -> pd.DataFrame:
        """The scores without their spreads, floats (NaN where one is missing); everything else is text."""
        return self.scores.values


def build_boards(
    records: Iterable[Record], suites: Iterable[AskedSuite], tests: Iterable[BoardTests] = ()
) -> list[Board]:
    """Every board that the records give, with those of the tests that are of its records.

    The order of the arguments does not matter.
    """
    records = list(records)
    known = {one.identity: one for one in tests}
    asked_once = {asked.name: asked for asked in sorted(suites, key=lambda asked: (asked.name, asked.tasks))}
    boards = [
        _board(group, asked, known.get(identity_of(spec_ids(group))))
        for asked in asked_once.values()
        for group in board_groups(records, asked.tasks)
    ]
    return sorted(boards, key=lambda board: (board.folder, board.suite, board.aspects))


def boards_showing(boards: Iterable[Board], specs: Iterable[Spec], suites: Iterable[AskedSuite]) -> list[Board]:
    """Those boards of the suites that show the cells.

    Training-free cells stand on the boards of every training: they choose boards only if no trained cell does.
    """
    names = {slug(asked.name) for asked in suites}
    of_suites = [board for board in boards if board.suite in names]
    specs = list(specs)
    trained = frozenset(spec.spec_id for spec in specs if not training_free(spec))
    every = frozenset(spec.spec_id for spec in specs)
    return [board for board in of_suites if board.spec_ids & trained] or [
        board for board in of_suites if board.spec_ids & every
    ]


def borda_points(scores: Sequence[Sequence[float]]) -> list[float]:
    """Points of each row of `scores` (methods x tasks): on each task, rows beaten plus half of the ties."""
    columns = list(zip(*scores, strict=True))
    return [sum(map(_task_points, row, columns)) for row in scores]


def _task_points(own: float, column: Sequence[float]) -> float:
    return sum(own > other for other in column) + (column.count(own) - 1) / 2


def competition_ranks(points: Sequence[float]) -> list[int]:
    """Rank 1 for the most points; ties share the smallest rank: 1, 2, 2, 4."""
    return [1 + sum(other > own for other in points) for own in points]


def _places(rows: list[Row], tasks: Sequence[str]) -> tuple[list[str], list[float]]:
    """Rank texts and Borda points of the rows; a row that takes no part has its twin's points, or NaN.

    Scores are compared as printed, so that readers can redo the count and noise in the last bits is a tie.
    """
    complete = [row for row in rows if len(row.scores) == len(tasks)]
    ranked = [row for row in complete if twin(row, complete) is None]
    points = borda_points([[round(row.scores[task], 2) for task in tasks] for row in ranked])
    places = zip(competition_ranks(points), points, strict=True)
    place = dict(zip((row.key for row in ranked), places, strict=True))
    texts, sortable = [], []
    for row in rows:
        equal = None if row.key in place else twin(row, rows)
        rank, own = place.get(equal.key if equal else row.key, ("", math.nan))
        texts.append(f"= {equal.method} (cosine)" if equal else str(rank))
        sortable.append(own if len(row.scores) == len(tasks) else math.nan)
    return texts, sortable


def _averages(row: Row, types: dict[str, str]) -> dict[str, Estimate]:
    """The mean of each task type and, of several, the mean of those means, over the seeds that have all tasks."""
    kinds = [kind for kind in get_args(TaskType) if kind in types.values()]
    names = [*(f"{kind} avg" for kind in kinds), *["overall"] * (len(kinds) > 1)]
    of_seeds = []
    for scores in row.scores_by_seed:
        if len(scores) == len(types):
            means = [fmean(scores[task] for task in types if types[task] == kind) for kind in kinds]
            of_seeds.append([*means, *[fmean(means)] * (len(kinds) > 1)])
    columns = list(zip(*of_seeds, strict=True))
    return dict(zip(names, map(estimate, columns) if columns else [MISSING] * len(names), strict=True))


def _table(
    rows: list[Row], types: dict[str, str], averaged: bool, tests: BoardTests | None
) -> tuple[Table, list[str]]:
    """The sorted table and the names of its average columns."""
    seeded = any(row.seeds for row in rows)
    averages: list[str] = []
    lines = []
    for row, label, rank, points in zip(rows, row_labels(rows), *_places(rows, list(types)), strict=True):
        means = _averages(row, types) if averaged else {}
        averages = list(means)
        scores = {task: row.estimates.get(task, MISSING) for task in types}
        costs = dict(zip(("dims", "params added", "encode s"), row.costs, strict=True))
        cells = {
            "rank": rank,
            "method": label,
            **({"seeds": row.seeds} if seeded else {}),
            **scores,
            **means,
            **(tested_cells(tests, label) if tests else {}),
            **costs,
        }
        # By rank; a row that equals another stands right below it; rows without a rank come last.
        leading = round(means[averages[-1]].mean, 2) if averages else 0.0
        lines.append(((_falling(points), _falling(leading), rank.startswith("="), label), cells))
    columns = list(lines[0][1])
    return Table.of(columns, [cells for _, cells in sorted(lines, key=lambda line: line[0])]), averages


def _falling(number: float) -> float:
    """A sort key: high before low, missing last."""
    return math.inf if math.isnan(number) else -number


def _board(records: list[Record], asked: AskedSuite, tests: BoardTests | None) -> Board:
    rows, spec = method_rows(records), leading_spec(records)
    kinds = {record.spec.task.name: str(record.spec.task.type) for record in records}
    types = {task: kinds[task] for task in asked.tasks if task in kinds}
    missing = [task for task in dict.fromkeys(asked.tasks) if task not in kinds]
    # One board may have the tasks of another suite too, but not its averages.
    tests = tests if tests and tests.covers(list(types), averaged=not missing) else None
    scores, averages = _table(rows, types, averaged=not missing, tests=tests)
    return Board(
        title=_title(asked, len(missing), spec.limit),
        backbone=spec.backbone.name,
        caption=tuple(board_caption(rows, list(types), missing, tests)),
        scores=scores,
        training=training_table(rows),
        overlap=overlap_table(rows, list(types)),
        tasks=tuple(types),
        averages=tuple(averages),
        folder=slug(spec.backbone.name),
        suite=slug(asked.name),
        aspects=aspects(records, asked.name),
        spec_ids=spec_ids(records),
        tests=tests,
    )


def _title(asked: AskedSuite, missing: int, limit: int | None) -> str:
    count = len(set(asked.tasks))
    title = f"{asked.title} ({count - missing} of {count})" if missing else asked.title
    return title if limit is None else f"{title} - SMOKE RUN: first {limit} samples, scores mean nothing"

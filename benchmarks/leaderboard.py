"""Boards as a pure function of records: which rows may stand together, in what order, with what caveats."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

import pandas as pd

from fusebench.benchmarks.atomic import slug
from fusebench.benchmarks.board_caption import board_caption
from fusebench.benchmarks.board_rows import Row, age, method_rows, row_labels, twin
from fusebench.benchmarks.record import Record, Spec, TaskType
from fusebench.benchmarks.store import AskedSuite


@dataclass(frozen=True, eq=False)
class Board:
    """Rows that may be compared: one backbone, one suite, one setting.

    `table` holds scores x100 as floats (NaN where a score is missing) and everything else as text. `folder`
    and `suite` are file names; `aspects` are words that tell boards of the same backbone and suite apart, the
    last of them a hash of all that they depend on.
    """

    title: str
    backbone: str
    caption: tuple[str, ...]
    table: pd.DataFrame
    tasks: tuple[str, ...]
    averages: tuple[str, ...]
    folder: str
    suite: str
    aspects: tuple[str, ...]


def build_boards(records: Iterable[Record], suites: Iterable[AskedSuite]) -> list[Board]:
    """Every board that the records give; the order of the arguments does not matter."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[repr(_setting(record.spec))].append(record)
    asked_once = {asked.name: asked for asked in sorted(suites, key=lambda asked: (asked.name, asked.tasks))}
    boards = [
        _board(edition, asked)
        for asked in asked_once.values()
        for group in groups.values()
        for edition in _editions([record for record in group if record.spec.task.name in asked.tasks])
    ]
    return sorted(boards, key=lambda board: (board.folder, board.suite, board.aspects))


def borda_points(scores: Sequence[Sequence[float]]) -> list[float]:
    """Points of each row of `scores` (methods x tasks): on each task, rows beaten plus half of the ties."""
    columns = list(zip(*scores, strict=True))
    return [sum(map(_task_points, row, columns)) for row in scores]


def _task_points(own: float, column: Sequence[float]) -> float:
    return sum(own > other for other in column) + (column.count(own) - 1) / 2


def competition_ranks(points: Sequence[float]) -> list[int]:
    """Rank 1 for the most points; ties share the smallest rank: 1, 2, 2, 4."""
    return [1 + sum(other > own for other in points) for own in points]


def _setting(spec: Spec) -> tuple[object, ...]:
    """What must be equal for two rows to share a board; the hashes because names can lie."""
    net = spec.backbone
    identity = (net.name, net.revision, net.weights_sha256, net.tokenizer_sha256)
    return (*identity, spec.max_length, spec.dtype, spec.regime, spec.train, spec.limit, spec.prompts)


def _editions(records: list[Record]) -> list[list[Record]]:
    """Splits records so that a task has the same data throughout each part: newest data first, then older."""
    versions: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=age, reverse=True):
        versions[record.spec.task.name][_measured(record)].append(record)
    newest_first = [list(of_task.values()) for of_task in versions.values()]
    count = max((len(of_task) for of_task in newest_first), default=0)
    return [[r for of_task in newest_first for r in of_task[min(k, len(of_task) - 1)]] for k in range(count)]


def _measured(record: Record) -> str:
    task = record.spec.task
    return repr((task.data_sha256, sorted(task.splits), sorted(task.subsets), task.metric, task.protocol))


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


def _averages(row: Row, types: dict[str, str]) -> dict[str, float]:
    """The mean of each task type and, of several, the mean of those means; NaN unless all tasks are there."""
    kinds = [kind for kind in get_args(TaskType) if kind in types.values()]
    scores = {task: row.scores.get(task, math.nan) for task in types}
    complete = not any(map(math.isnan, scores.values()))
    means = {f"{kind} avg": fmean(scores[task] for task in types if types[task] == kind) for kind in kinds}
    means |= {"overall": fmean(means.values())} if len(means) > 1 else {}
    return means if complete else dict.fromkeys(means, math.nan)


def _table(rows: list[Row], types: dict[str, str], averaged: bool) -> tuple[pd.DataFrame, list[str]]:
    """The sorted table and the names of its average columns."""
    averages: list[str] = []
    seeded = any(row.seeds for row in rows)
    lines = []
    for row, label, rank, points in zip(rows, row_labels(rows), *_places(rows, list(types)), strict=True):
        means = _averages(row, types) if averaged else {}
        averages = list(means)
        scores = [*(row.scores.get(task, math.nan) for task in types), *means.values()]
        cells = [rank, label, *[row.seeds] * seeded, *scores, *row.costs]
        # By rank; a row that equals another stands right below it; rows without a rank come last.
        order = (
            _falling(points),
            _falling(round(scores[-1], 2)) if averaged else 0.0,
            rank.startswith("="),
            label,
        )
        lines.append((order, cells))
    columns = ["rank", "method", *["seeds"] * seeded, *types, *averages, "dims", "params added", "encode s"]
    return pd.DataFrame([cells for _, cells in sorted(lines, key=lambda line: line[0])], columns=columns), averages


def _falling(number: float) -> float:
    """A sort key: high before low, missing last."""
    return math.inf if math.isnan(number) else -number


def _board(records: list[Record], asked: AskedSuite) -> Board:
    rows, spec = method_rows(records), records[0].spec
    kinds = {record.spec.task.name: str(record.spec.task.type) for record in records}
    types = {task: kinds[task] for task in asked.tasks if task in kinds}
    missing = [task for task in dict.fromkeys(asked.tasks) if task not in kinds]
    table, averages = _table(rows, types, averaged=not missing)
    return Board(
        title=_title(asked, len(missing), spec.limit),
        backbone=spec.backbone.name,
        caption=tuple(board_caption(rows, list(types), missing)),
        table=table,
        tasks=tuple(types),
        averages=tuple(averages),
        folder=slug(spec.backbone.name),
        suite=slug(asked.name),
        aspects=_aspects(records, asked),
    )


def _aspects(records: list[Record], asked: AskedSuite) -> tuple[str, ...]:
    spec = records[0].spec
    prompted = any(spec.prompts.model_dump().values())
    data = sorted({(record.spec.task.name, _measured(record)) for record in records})
    return (
        f"len{spec.max_length}",
        slug(spec.dtype),
        slug(spec.regime),
        f"train-{slug(spec.train.name)}" if spec.train else "",
        f"first{spec.limit}" if spec.limit is not None else "",
        f"prompts-{_digest(repr(spec.prompts))}" if prompted else "",
        _digest(repr((asked.name, _setting(spec), data))),
    )


def _title(asked: AskedSuite, missing: int, limit: int | None) -> str:
    count = len(set(asked.tasks))
    title = f"{asked.title} ({count - missing} of {count})" if missing else asked.title
    return title if limit is None else f"{title} - SMOKE RUN: first {limit} samples, scores mean nothing"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]

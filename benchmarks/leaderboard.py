"""Boards as a pure function of records: which rows may stand together, in what order, with what caveats."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean
from typing import get_args

import pandas as pd
from fusebench.benchmarks.atomic import slug
from fusebench.benchmarks.record import Record, Spec, TaskType, TextSetSpec
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
    for record in sorted(records, key=_age, reverse=True):
        versions[record.spec.task.name][_measured(record)].append(record)
    newest_first = [list(of_task.values()) for of_task in versions.values()]
    count = max((len(of_task) for of_task in newest_first), default=0)
    return [[r for of_task in newest_first for r in of_task[min(k, len(of_task) - 1)]] for k in range(count)]


def _measured(record: Record) -> str:
    task = record.spec.task
    return repr((task.data_sha256, sorted(task.splits), sorted(task.subsets), task.metric, task.protocol))


def _age(record: Record) -> tuple[datetime, str]:
    created = datetime.fromisoformat(record.environment.created)
    return (created if created.tzinfo else created.replace(tzinfo=UTC)), record.spec_id


@dataclass(frozen=True)
class _Row:
    """One method with one set of texts that its transforms were fitted on; `cells` has a record per seed."""

    method: str
    fit: TextSetSpec | None
    cells: dict[str, list[Record]]

    @cached_property
    def scores(self) -> dict[str, float]:
        return {task: 100 * fmean(r.main_score for r in seeds) for task, seeds in self.cells.items()}

    @cached_property
    def key(self) -> tuple[str, TextSetSpec | None]:
        return self.method, self.fit

    @cached_property
    def records(self) -> list[Record]:
        return sorted((record for seeds in self.cells.values() for record in seeds), key=_age)

    @property
    def equal_to(self) -> str | None:
        return self.records[-1].equal_to

    @property
    def costs(self) -> list[str]:
        seconds = sum(fmean(r.cost.fusion_seconds for r in self.cells[task]) for task in sorted(self.cells))
        dims, added = (r.out_dim for r in self.records), (r.added_parameters for r in self.records)
        return [_span(dims), _span(added), f"{seconds:.2f}"]

    @property
    def seeds(self) -> str:
        counts = [sum(r.spec.seed is not None for r in seeds) for seeds in self.cells.values()]
        return _span(counts) if any(counts) else ""


def _rows(records: list[Record]) -> list[_Row]:
    """The rows by method and fit; of two records of one cell the newest counts."""
    newest: dict[tuple[str, TextSetSpec | None, str, int | None], Record] = {}
    for record in sorted(records, key=_age):
        spec = record.spec
        newest[spec.method.name, spec.fit, spec.task.name, spec.seed] = record
    rows: dict[tuple[str, TextSetSpec | None], _Row] = {}
    for (method, fit, task, _), record in newest.items():
        row = rows.setdefault((method, fit), _Row(method, fit, {}))
        row.cells.setdefault(task, []).append(record)
    return sorted(rows.values(), key=lambda row: (row.method, repr(row.fit)))


def _twin(row: _Row, rows: Sequence[_Row]) -> _Row | None:
    """The row that `row` equals under cosine by construction, if it is there and stands on its own."""
    twins = [other for other in rows if other.method == row.equal_to and other.equal_to is None]
    same_fit = [other for other in twins if other.fit == row.fit]
    return next(iter(same_fit or twins), None)


def _places(rows: list[_Row], tasks: Sequence[str]) -> tuple[list[str], list[float]]:
    """Rank texts and Borda points of the rows; a row that takes no part has its twin's points, or NaN.

    Scores are compared as printed, so that readers can redo the count and noise in the last bits is a tie.
    """
    complete = [row for row in rows if len(row.scores) == len(tasks)]
    ranked = [row for row in complete if _twin(row, complete) is None]
    points = borda_points([[round(row.scores[task], 2) for task in tasks] for row in ranked])
    places = zip(competition_ranks(points), points, strict=True)
    place = dict(zip((row.key for row in ranked), places, strict=True))
    texts, sortable = [], []
    for row in rows:
        twin = None if row.key in place else _twin(row, rows)
        rank, own = place.get(twin.key if twin else row.key, ("", math.nan))
        texts.append(f"= {twin.method} (cosine)" if twin else str(rank))
        sortable.append(own if len(row.scores) == len(tasks) else math.nan)
    return texts, sortable


def _averages(row: _Row, types: dict[str, str]) -> dict[str, float]:
    """The mean of each task type and, of several, the mean of those means; NaN unless all tasks are there."""
    kinds = [kind for kind in get_args(TaskType) if kind in types.values()]
    scores = {task: row.scores.get(task, math.nan) for task in types}
    complete = not any(map(math.isnan, scores.values()))
    means = {f"{kind} avg": fmean(scores[task] for task in types if types[task] == kind) for kind in kinds}
    means |= {"overall": fmean(means.values())} if len(means) > 1 else {}
    return means if complete else dict.fromkeys(means, math.nan)


def _labels(rows: list[_Row]) -> list[str]:
    fits = {row.fit for row in rows if row.fit}
    if len(fits) < 2:
        return [row.method for row in rows]
    ambiguous = len({fit.name for fit in fits}) < len(fits)
    names = {fit: f"{fit.name} {fit.sha256[:8]}" if ambiguous else fit.name for fit in fits}
    return [f"{row.method} [fit: {names[row.fit]}]" if row.fit else row.method for row in rows]


def _table(rows: list[_Row], types: dict[str, str], averaged: bool) -> tuple[pd.DataFrame, list[str]]:
    """The sorted table and the names of its average columns."""
    averages: list[str] = []
    seeded = any(row.seeds for row in rows)
    lines = []
    for row, label, rank, points in zip(rows, _labels(rows), *_places(rows, list(types)), strict=True):
        means = _averages(row, types) if averaged else {}
        averages = list(means)
        scores = [*(row.scores.get(task, math.nan) for task in types), *means.values()]
        final = round(scores[-1], 2) if averaged else points
        cells = [rank, label, *[row.seeds] * seeded, *scores, *row.costs]
        lines.append((math.inf if math.isnan(final) else -final, label, cells))
    columns = ["rank", "method", *["seeds"] * seeded, *types, *averages, "dims", "params added", "fusion s"]
    return pd.DataFrame(
        [cells for *_, cells in sorted(lines, key=lambda line: line[:2])], columns=columns
    ), averages


def _board(records: list[Record], asked: AskedSuite) -> Board:
    rows, spec = _rows(records), records[0].spec
    kinds = {record.spec.task.name: str(record.spec.task.type) for record in records}
    types = {task: kinds[task] for task in asked.tasks if task in kinds}
    missing = [task for task in dict.fromkeys(asked.tasks) if task not in kinds]
    table, averages = _table(rows, types, averaged=not missing)
    return Board(
        title=_title(asked, len(missing), spec.limit),
        backbone=spec.backbone.name,
        caption=tuple(_caption(rows, list(types), missing)),
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


def _caption(rows: list[_Row], tasks: list[str], missing: list[str]) -> list[str]:
    """What a reader must know to quote the board, one sentence or two a line."""
    records = [record for row in rows for record in row.records]
    return [
        *_setting_lines(rows, records),
        *_score_lines(rows, records, missing),
        *_rank_lines(rows, tasks),
        *_origin_lines(records, tasks),
    ]


def _setting_lines(rows: list[_Row], records: list[Record]) -> list[str]:
    spec = records[0].spec
    net = spec.backbone
    sources = _all(record.spec.max_length_source for record in records)
    train = _text_set(spec.train) if spec.train else "none"
    fits = _all(_text_set(row.fit) for row in rows if row.fit) or "none"
    prompts = ", ".join(f"{kind} {text!r}" for kind, text in spec.prompts.model_dump().items() if text)
    return [
        f"Backbone: {net.name}, revision {net.revision.removeprefix('sha256:')[:8]} ({net.architecture}, "
        f"{net.blocks} blocks, {net.dim} dimensions); {_count(len(rows), 'method')}.",
        f"Setting: max length {spec.max_length} ({sources}), {spec.dtype}, {spec.regime}; train: {train}; "
        f"fit: {fits}" + (f"; prompts: {prompts}." if prompts else "."),
        *[f"SMOKE RUN: first {spec.limit} samples, scores mean nothing."] * (spec.limit is not None),
    ]


def _score_lines(rows: list[_Row], records: list[Record], missing: list[str]) -> list[str]:
    tasks = [record.spec.task for record in records]
    metrics = [
        f"{kind}: {_all(task.metric for task in tasks if task.type == kind)}"
        for kind in get_args(TaskType)
        if any(task.type == kind for task in tasks)
    ]
    protocols = _all(task.protocol for task in tasks if task.type == "STS")
    lines = [f"Scores x100. {'; '.join(metrics)}." + (f" STS protocol: {protocols}." if protocols else "")]
    if missing:
        total = len(missing) + len({task.name for task in tasks})
        lines.append(f"No averages: {len(missing)} of {total} tasks missing: {', '.join(missing)}.")
    if seeds := _all(record.spec.seed for record in records if record.spec.seed is not None):
        lines.append(f"Seeds: {seeds}; a cell is the mean over its seeds.")
    return lines


def _rank_lines(rows: list[_Row], tasks: list[str]) -> list[str]:
    lines = ["Rank: Borda count on the printed scores; differences are not tested for significance."]
    lacking = {label: set(tasks) - set(row.cells) for label, row in zip(_labels(rows), rows, strict=True)}
    if named := [f"{label} lacks {_all(absent)}" for label, absent in lacking.items() if absent]:
        lines.append(f"Not ranked or averaged: {'; '.join(named)}.")
    if any(_twin(row, rows) for row in rows):
        lines.append(
            "'= x (cosine)': orders all pairs of texts as x does, so it is not ranked a second time."
        )
    return lines


def _origin_lines(records: list[Record], tasks: list[str]) -> list[str]:
    newest = {record.spec.task.name: record for record in sorted(records, key=_age)}
    seconds = sum(newest[task].cost.pass_seconds for task in tasks)
    versions = (r.spec.software.get("mteb") or r.environment.versions.get("mteb", "unknown") for r in records)
    codes = len({record.spec.code for record in records})
    return [
        f"mteb {_all(versions)}; device: {_all(record.spec.device for record in records)}.",
        f"The backbone's pass took {seconds:.2f} s over {_count(len(tasks), 'task')}, once for all methods; "
        "fusion s is a method's work on top.",
        *[f"The rows come from {codes} versions of the code."] * (codes > 1),
    ]


def _text_set(texts: TextSetSpec) -> str:
    return f"{texts.name} ({_count(texts.count, 'text')}, {texts.sha256[:8]})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _all(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in sorted(set(values), key=lambda v: (isinstance(v, str), v)))


def _span(values: Iterable[int]) -> str:
    low, high = min(held := set(values)), max(held)
    return str(low) if low == high else f"{low}-{high}"

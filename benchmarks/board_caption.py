"""The caption of a board: what a reader must know to quote it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from fusebench.benchmarks.board_rows import Row, age, row_labels, twin
from fusebench.benchmarks.record import Record, TaskType, TextSetSpec


def board_caption(rows: list[Row], tasks: list[str], missing: list[str]) -> list[str]:
    """What a reader must know to quote the board, one sentence or two a line."""
    records = [record for row in rows for record in row.records]
    return [
        *_setting_lines(rows, records),
        *_score_lines(rows, records, missing),
        *_rank_lines(rows, tasks),
        *_origin_lines(records, tasks),
    ]


def _setting_lines(rows: list[Row], records: list[Record]) -> list[str]:
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


def _score_lines(rows: list[Row], records: list[Record], missing: list[str]) -> list[str]:
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


def _rank_lines(rows: list[Row], tasks: list[str]) -> list[str]:
    lines = ["Rank: Borda count on the printed scores; differences are not tested for significance."]
    lacking = {label: set(tasks) - set(row.cells) for label, row in zip(row_labels(rows), rows, strict=True)}
    if named := [f"{label} lacks {_all(absent)}" for label, absent in lacking.items() if absent]:
        lines.append(f"Not ranked or averaged: {'; '.join(named)}.")
    if any(twin(row, rows) for row in rows):
        lines.append("'= x (cosine)': orders all pairs of texts as x does, so it is not ranked a second time.")
    return lines


def _origin_lines(records: list[Record], tasks: list[str]) -> list[str]:
    newest = {record.spec.task.name: record for record in sorted(records, key=age)}
    seconds = sum(newest[task].cost.pass_seconds for task in tasks)
    versions = (r.spec.software.get("mteb") or r.environment.versions.get("mteb", "unknown") for r in records)
    commits = {(record.environment.git_commit, record.environment.git_dirty) for record in records}
    return [
        f"mteb {_all(versions)}; device: {_all(record.spec.device for record in records)}.",
        f"encode s: a method alone on the texts of {_count(len(tasks), 'task')}; {seconds:.2f} s of it are the "
        "backbone's pass, which all methods share.",
        *[f"The rows come from {len(commits)} versions of the code."] * (len(commits) > 1),
    ]


def _text_set(texts: TextSetSpec) -> str:
    return f"{texts.name} ({_count(texts.count, 'text')}, {texts.sha256[:8]})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _all(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in sorted(set(values), key=lambda v: (isinstance(v, str), v)))

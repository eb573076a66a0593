"""The caption of a board: what a reader must know to quote it."""

from __future__ import annotations

from typing import get_args

from fusebench.benchmarks.board_groups import leading_spec
from fusebench.benchmarks.board_overlap import overlap_lines
from fusebench.benchmarks.board_rows import Row, age, row_labels, twin
from fusebench.benchmarks.board_significance import lines_on_tests
from fusebench.benchmarks.board_tests import BoardTests
from fusebench.benchmarks.board_training import training_lines
from fusebench.benchmarks.board_words import counted, listed, text_set
from fusebench.benchmarks.record import Record, TaskType


def board_caption(rows: list[Row], tasks: list[str], missing: list[str], tests: BoardTests | None) -> list[str]:
    """What a reader must know to quote the board, one sentence or two a line."""
    records = [record for row in rows for record in row.records]
    return [
        *_setting_lines(rows, records),
        *training_lines(rows),
        *overlap_lines(rows, tasks),
        *_score_lines(records, missing),
        *_seed_lines(rows),
        *_rank_lines(rows, tasks),
        *lines_on_tests(tests),
        *_origin_lines(records, tasks),
    ]


def _setting_lines(rows: list[Row], records: list[Record]) -> list[str]:
    spec = leading_spec(records)
    net = spec.backbone
    sources = listed(record.spec.max_length_source for record in records)
    train = listed(text_set(one) for row in rows for one in row.key.trained_on) or "none"
    fits = listed(text_set(row.key.fit) for row in rows if row.key.fit) or "none"
    prompts = ", ".join(f"{kind} {text!r}" for kind, text in spec.prompts.model_dump().items() if text)
    return [
        f"Backbone: {net.name}, revision {net.revision.removeprefix('sha256:')[:8]} ({net.architecture}, "
        f"{net.blocks} blocks, {net.dim} dimensions); {counted(len(rows), 'method')}.",
        f"Setting: max length {spec.max_length} ({sources}), {spec.dtype}, {spec.regime}; train: {train}; "
        f"fit: {fits}" + (f"; prompts: {prompts}." if prompts else "."),
        *[f"SMOKE RUN: first {spec.limit} samples, scores mean nothing."] * (spec.limit is not None),
    ]


def _score_lines(records: list[Record], missing: list[str]) -> list[str]:
    tasks = [record.spec.task for record in records]
    metrics = [
        f"{kind}: {listed(task.metric for task in tasks if task.type == kind)}"
        for kind in get_args(TaskType)
        if any(task.type == kind for task in tasks)
    ]
    protocols = listed(task.protocol for task in tasks if task.type == "STS")
    lines = [f"Scores x100. {'; '.join(metrics)}." + (f" STS protocol: {protocols}." if protocols else "")]
    if missing:
        total = len(missing) + len({task.name for task in tasks})
        lines.append(f"No averages: {len(missing)} of {total} tasks missing: {', '.join(missing)}.")
    return lines


def _seed_lines(rows: list[Row]) -> list[str]:
    seeds = listed(record.spec.seed for row in rows for record in row.records if record.spec.seed is not None)
    if not seeds:
        return []
    if all(len(row.scores_by_seed) == 1 for row in rows):
        return [f"Seeds: {seeds}; with one seed a row, how much scores vary over seeds is not known."]
    return [
        f"Seeds: {seeds}; a cell is the mean over its seeds ± their sample standard deviation (n - 1), an average "
        "that of each seed's own average, over the seeds that have every task. ± says how far seeds differ; it is "
        "no confidence interval over test items."
    ]


def _rank_lines(rows: list[Row], tasks: list[str]) -> list[str]:
    lines = ["Rank: Borda count on the printed scores."]
    lacking = {label: set(tasks) - set(row.cells) for label, row in zip(row_labels(rows), rows, strict=True)}
    if named := [f"{label} lacks {listed(absent)}" for label, absent in lacking.items() if absent]:
        lines.append(f"Not ranked or averaged: {'; '.join(named)}.")
    if any(twin(row, rows) for row in rows):
        lines.append("'= x (cosine)': orders all pairs of texts as x does, so it is not ranked a second time.")
    return lines


def _origin_lines(records: list[Record], tasks: list[str]) -> list[str]:
    shared = [record for record in records if record.spec.regime != "finetune"]
    newest = {record.spec.task.name: record for record in sorted(shared or records, key=age)}
    seconds = sum(newest[task].cost.pass_seconds for task in tasks if task in newest)
    whose = "the backbone's pass, which all methods share" if shared else "the last method's own pass of its backbone"
    if len(shared) not in (0, len(records)):
        whose += "; a fine-tuned backbone has a pass of its own"
    versions = (r.spec.software.get("mteb") or r.environment.versions.get("mteb", "unknown") for r in records)
    commits = {(record.environment.git_commit, record.environment.git_dirty) for record in records}
    return [
        f"mteb {listed(versions)}; device: {listed(record.spec.device for record in records)}.",
        f"encode s: a method alone on the texts of {counted(len(tasks), 'task')}; {seconds:.2f} s of it are {whose}.",
        *[f"The rows come from {len(commits)} versions of the code."] * (len(commits) > 1),
    ]

"""`run_bench.py gate`: the scores of a run against a baseline, and the writing of that baseline."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from fusebench.benchmarks import gate_files
from fusebench.benchmarks.atomic import atomic_write
from fusebench.benchmarks.baseline import (
    FLOOR,
    Baseline,
    Cell,
    Rerun,
    Update,
    read_baseline,
    rule,
    spread_of,
    tolerance_of,
    write_baseline,
)
from fusebench.benchmarks.gate import GateReport, compare, key_of
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.run_spec import RunSpec
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods.registry import load_plugins
from fusebench.study.display import LiveProgress
from fusebench.study.environment import environment
from fusebench.study.options import Options
from fusebench.study.rerun import Places, make_again, options_of
from fusebench.study.run import Progress
from fusebench.study.screen import Screen

_BATCH_FACTORS = (0.25, 4.0, 0.5, 2.0, 0.125)


def show(flags: argparse.Namespace) -> int:
    """Compares, or with `update` measures and writes; 0 when every cell is the same, 1 otherwise.

    Args:
        flags: `baseline`, `out` (records to read instead of a rerun), `update`, `reason`, `reruns`, `spreads`,
            `data_dir`, `backbone`, `fit`, `train`, `dev`, `plugin`, `markdown`, `junit`, `json`.

    Raises:
        InputError: the baseline or the run cannot be used.
    """
    load_plugins(flags.plugin)
    places = Places(flags.data_dir, flags.backbone, flags.fit, tuple(flags.train or ()), flags.dev)
    if flags.update:
        return _update(flags, places)
    if flags.reason is not None:
        raise InputError("--reason goes with --update; without it the baseline stays as it is.")
    baseline = read_baseline(flags.baseline)
    report = _from_records(baseline, flags.out) if flags.out else _from_rerun(baseline, places)
    _print(report)
    for path, text in (
        (flags.markdown, gate_files.markdown),
        (flags.junit, gate_files.junit),
        (flags.json, gate_files.as_json),
    ):
        if path is not None:
            atomic_write(path, text(report))
    return 0 if report.passed else 1


def _from_rerun(baseline: Baseline, places: Places) -> GateReport:
    with LiveProgress(Screen(stderr=True)).running() as progress:
        made = make_again(options_of(baseline.run, places), progress=progress)
    return compare(baseline, made.records, made.failures)


def _from_records(baseline: Baseline, out: Path) -> GateReport:
    return compare(baseline, [record for record in _records(out) if baseline.run.includes(record.spec)])


def _records(out: Path) -> list[Record]:
    if not (out / "runs").is_dir():
        raise InputError(f"--out {out} holds no records (it has no folder runs); run --methods first.")
    return Store(out).records()


def _update(flags: argparse.Namespace, places: Places) -> int:
    if not (flags.reason or "").strip():
        raise InputError(
            "--update needs --reason TEXT, which says why the scores may change; it is kept in the file."
        )
    if flags.reruns < 2:
        raise InputError(f"--reruns {flags.reruns}: a spread needs at least 2.")
    before = read_baseline(flags.baseline) if flags.baseline.exists() else None
    if flags.out is None and before is None:
        raise InputError(
            f"{flags.baseline} is not there yet; name the folder of a run whose cells it should hold by --out DIR."
        )
    asked = RunSpec.of([record.spec for record in _records(flags.out)]) if flags.out else before.run  # type: ignore[union-attr]
    with LiveProgress(Screen(stderr=True)).running() as progress:
        baseline = measure(asked, places, flags.reruns, flags.spreads, progress)
    made = baseline.environment
    earlier = before.updates if before else ()
    update = Update(created=made.created, git_commit=made.git_commit, reason=flags.reason.strip())
    baseline = baseline.model_copy(update={"updates": (*earlier, update)})
    write_baseline(flags.baseline, baseline)
    _print_update(baseline, before)
    return 0


def measure(
    asked: RunSpec,
    places: Places,
    reruns: int,
    spreads: float,
    progress: Progress = lambda stage, done, total: None,
) -> Baseline:
    """A baseline without updates: one run for the scores, and reruns for the tolerances.

    Raises:
        InputError: if anything is not there, or a cell fails.
    """
    options = options_of(asked, places)
    changes = variations(options, asked.batch_tokens, reruns)
    first = _all_cells(options, None, progress)
    again = []
    for number, change in enumerate(changes, start=1):
        again.append(_all_cells(options, change, _within(f"rerun {number} of {reruns}: ", progress)))
    cells = []
    for record in first:
        method, task, seed = key_of(record)
        scores = tuple(
            _score(records, (method, task, None if seed is None else seed + change.seed_offset))
            for records, change in zip(again, changes, strict=True)
        )
        cells.append(_cell(record, scores, spreads))
    return Baseline(
        rule=rule(reruns, spreads, FLOOR),
        floor=FLOOR,
        spreads=spreads,
        run=asked,
        reruns=changes,
        updates=(),
        environment=environment(),
        cells=tuple(cells),
    )


def variations(options: Options, batch_tokens: int, count: int) -> tuple[Rerun, ...]:
    """So many reruns, each with another batch size, order of texts, number of threads, and seeds of its own."""
    threads = itertools.cycle(range(1, max(2, min(4, os.cpu_count() or 1)) + 1))
    factors = itertools.cycle(_BATCH_FACTORS)
    span = max(options.seeds) - min(options.seeds) + 1
    return tuple(
        Rerun(
            batch_tokens=max(1, round(batch_tokens * next(factors))),
            threads=next(threads),
            order=number,
            seed_offset=number * span,
        )
        for number in range(1, count + 1)
    )


def _within(stage: str, progress: Progress) -> Progress:
    """Progress whose stages carry the name of the run that they belong to."""
    return lambda inner, done, total: progress(stage + inner, done, total)


def _all_cells(options: Options, change: Rerun | None, progress: Progress) -> Sequence[Record]:
    made = make_again(options, change, progress)
    if made.failures:
        (method, task, _), why = next(iter(made.failures.items()))
        raise InputError(f"no baseline is written, because {method} on {task} failed: {why}.")
    return made.records


def _score(records: Sequence[Record], key: tuple[str, str, int | None]) -> float:
    return next(record.main_score for record in records if key_of(record) == key)


def _cell(record: Record, rerun_scores: tuple[float, ...], spreads: float) -> Cell:
    method, task, seed = key_of(record)
    spread = spread_of(record.main_score, rerun_scores)
    return Cell(
        method=method,
        task=task,
        seed=seed,
        metric=record.spec.task.metric,
        score=record.main_score,
        tolerance=tolerance_of(spread, spreads=spreads),
        spread=spread,
        rerun_scores=rerun_scores,
        data_sha256=record.spec.task.data_sha256,
        weights_sha256=record.spec.backbone.weights_sha256,
    )


def _print(report: GateReport) -> None:
    screen = Screen()
    table = Table(*gate_files.COLUMNS, box=None, pad_edge=False)
    for verdict in report.verdicts:
        table.add_row(*map(Text, gate_files.row(verdict)), style=None if verdict.passed else "bold red")
    screen.print(table)
    screen.print(f"\n{gate_files.summary(report)}", highlight=False, markup=False, soft_wrap=True)


def _print_update(baseline: Baseline, before: Baseline | None) -> None:
    old = {cell.key: cell.score for cell in before.cells} if before else {}
    table = Table("task", "method", "before", "now", "spread", "changes caught above", box=None, pad_edge=False)
    for cell in baseline.cells:
        label = cell.method if cell.seed is None else f"{cell.method}, seed {cell.seed}"
        was = f"{old[cell.key]:.5f}" if cell.key in old else "new"
        table.add_row(cell.task, Text(label), was, f"{cell.score:.5f}", f"{cell.spread:.1e}", f"{cell.tolerance:.1e}")
    screen = Screen()
    screen.print(table)
    gone = sorted(f"{method} on {task}" for method, task, seed in old.keys() - {cell.key for cell in baseline.cells})
    for line in [f"no longer gated: {one}" for one in gone] + [baseline.rule]:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)

"""Runs a sweep: its runs one after the other, each as the command line would; then the choice on the dev rows."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.table import Table

from fusebench.benchmarks.board_files import require_own_readme
from fusebench.benchmarks.redaction import redacted
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.sweep_choice import Choice, choose
from fusebench.benchmarks.sweep_files import KeptRun, KeptSweep, sweep_path, write_sweep
from fusebench.errors import InputError
from fusebench.methods.registry import load_plugins
from fusebench.study.boards import rebuild
from fusebench.study.commands import compute, executor_of, options_of, show_rejected
from fusebench.study.display import show_outcome, show_plan
from fusebench.study.dry_run import DryRun
from fusebench.study.logs import logged_to_file, logged_to_stderr
from fusebench.study.plan import make_plan
from fusebench.study.results_place import results_in
from fusebench.study.screen import Screen
from fusebench.study.sweep_file import Sweep, SweepRun, plain, read_sweep

_LOG = logging.getLogger(__name__)

# Where a sweep ran and what its terminal showed is no part of what was asked for.
_NOT_KEPT = (
    "out",
    "data_dir",
    "plugin",
    "dry_run",
    "verbose",
    "quiet",
    "config",
    "rerun",
    "sweep",
    "test",
    "track",
    "device",
)


@dataclass
class _Done:
    """What became of a run: the identities of its cells, and a sentence for each thing that failed."""

    cells: tuple[str, ...] = ()
    failures: list[str] = field(default_factory=list)


def run_sweep(flags: argparse.Namespace, arguments: Sequence[str]) -> int:
    """`run_bench.py --sweep FILE`: the exit code, 2 if no run could be planned.

    Raises:
        InputError: the file makes no sense, or the results folder cannot be used.
    """
    level = logging.ERROR if flags.quiet else max(logging.DEBUG, logging.WARNING - 10 * flags.verbose)
    with logged_to_stderr(level):
        sweep = read_sweep(flags.sweep, arguments)
        with results_in(sweep.runs[0].flags.out, writes=not flags.dry_run, quiet=flags.quiet) as out:
            for run in sweep.runs:
                run.flags.out = out
            return _run_sweep(sweep, flags, level)


def _run_sweep(sweep: Sweep, flags: argparse.Namespace, level: int) -> int:
    load_plugins(list(dict.fromkeys(path for run in sweep.runs for path in run.flags.plugin)))
    screen, messages = Screen(), Screen(stderr=True, quiet=flags.quiet)
    out = sweep.runs[0].flags.out
    store = Store(out)
    require_own_readme(out)
    drawn = "" if len(sweep.runs) == sweep.combinations else f" of {sweep.combinations} combinations"
    messages.print(f"sweep {sweep.name}: {len(sweep.runs)} runs{drawn}", highlight=False, markup=False)
    show_rejected(store, messages)
    if flags.dry_run:
        return _estimate(sweep, DryRun(store, screen, messages), messages)
    store.require_writable()
    done: dict[SweepRun, _Done] = {}
    write_sweep(out, _kept(sweep, done))
    for number, run in enumerate(sweep.runs, start=1):
        messages.print(f"\nrun {number} of {len(sweep.runs)}: {run.name}", highlight=False, markup=False)
        with logged_to_file(out, level):
            done[run] = _run(run, store, messages)
        write_sweep(out, _kept(sweep, done))
    choices = _choices(done, store)
    write_sweep(out, _kept(sweep, done, choices))
    _, files = rebuild(store)
    if choices:
        screen.print(_choice_table(choices))
    _show_end(sweep, done, choices, messages)
    path = sweep_path(out, _kept(sweep, done, choices))
    messages.print(f"{len(files)} board files and scores.csv are in {out}, the sweep in {path}", soft_wrap=True)
    if all(not one.cells for one in done.values()):
        return 2
    return 1 if any(one.failures for one in done.values()) else 0


def _estimate(sweep: Sweep, dry_run: DryRun, messages: Screen) -> int:
    """What every run would take; those that cannot be planned are named, as they would be in the sweep itself."""
    failures = []
    for run in sweep.runs:
        started = time.monotonic()
        try:
            plan = make_plan(options_of(run.flags))
        except InputError as error:
            failures.append(f"FAILED {run.name}: {error}")
            continue
        dry_run.add(plan, name=run.name, loading_seconds=time.monotonic() - started)
    dry_run.show()
    for line in failures:
        messages.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(failures) == len(sweep.runs):
        return 2
    return 1 if failures else 0


def _run(run: SweepRun, store: Store, messages: Screen) -> _Done:
    """One run; whatever stops it is a sentence, and the next one goes on."""
    started = time.monotonic()
    done = _Done()
    try:
        plan = make_plan(options_of(run.flags))
        finished = {} if plan.options.rerun else store.finished()
        done.cells = tuple(cell.spec.spec_id for cell in plan.cells)
        show_plan(plan, sum(one in finished for one in done.cells), messages)
        outcome = compute(plan, store, executor_of(run.flags), messages)
        show_outcome(outcome, time.monotonic() - started, messages)
        done.failures += outcome.failures
    except Exception as error:  # a third-party part or a backbone's own code can raise anything
        _LOG.info("%s", run.name, exc_info=error)
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        done.failures.append(f"{kind}{error}")
        messages.print(f"FAILED {kind}{error}", highlight=False, markup=False, soft_wrap=True)
    return done


def _choices(done: Mapping[SweepRun, _Done], store: Store) -> tuple[Choice, ...]:
    finished = store.finished()
    by_run = {run.name: [finished[one] for one in it.cells if one in finished] for run, it in done.items()}
    return tuple(choose(by_run))


def _choice_table(choices: Sequence[Choice]) -> Table:
    table = Table(title="Chosen on the dev rows; trials, updates and examples count all that was tried")
    for heading in ("backbone", "method", "chosen", "dev", "score", "runs", "trials", "updates", "examples"):
        table.add_column(heading, justify="left" if heading in ("backbone", "method", "chosen") else "right")
    for one in choices:
        scores = ["-" if value is None else f"{100 * value:.2f}" for value in (one.dev_score, one.main_score)]
        budget = (str(number) for number in (one.runs, one.trials, one.updates, one.examples))
        table.add_row(one.backbone, one.method, one.run or "nothing", *scores, *budget)
    return table


def _show_end(sweep: Sweep, done: Mapping[SweepRun, _Done], choices: Sequence[Choice], messages: Screen) -> None:
    lines = [f"FAILED {run.name}: {failure}" for run, it in done.items() for failure in it.failures]
    if any(one.runs > 1 and one.run is None for one in choices):
        lines.append('nothing was chosen: that takes dev rows, such as dev = "stsb-dev" in the file')
    failed = sum(bool(it.failures) for it in done.values())
    lines.append(f"{len(sweep.runs) - failed} of {len(sweep.runs)} runs without a failure")
    for line in lines:
        messages.print(line, highlight=False, markup=False, soft_wrap=True)


def _kept(sweep: Sweep, done: Mapping[SweepRun, _Done], choices: tuple[Choice, ...] = ()) -> KeptSweep:
    return KeptSweep(
        name=redacted(sweep.name),
        combinations=sweep.combinations,
        sample_seed=None if sweep.sample is None else sweep.sample.seed,
        runs=tuple(_kept_run(run, done.get(run)) for run in sweep.runs),
        choices=choices,
    )


def _kept_run(run: SweepRun, done: _Done | None) -> KeptRun:
    kept = {name: value for name, value in vars(run.flags).items() if name not in _NOT_KEPT}
    flags = {name.replace("_", "-"): plain(name, value) for name, value in kept.items()}
    if done is None:
        return KeptRun(name=run.name, flags=flags)
    state: Literal["done", "failed"] = "failed" if done.failures else "done"
    return KeptRun(name=run.name, flags=flags, state=state, cells=done.cells, failures=len(done.failures))

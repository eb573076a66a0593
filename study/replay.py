"""`run_bench.py replay`: a record's cell made again from its specification, or what stands in the way of it."""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from fusebench.benchmarks.baseline import FLOOR
from fusebench.benchmarks.record import Record, Spec
from fusebench.benchmarks.run_spec import RunSpec
from fusebench.errors import InputError
from fusebench.methods.grammar import parse
from fusebench.methods.registry import load_plugins
from fusebench.study import code_identity
from fusebench.study.display import LiveProgress
from fusebench.study.options import Options
from fusebench.study.plan import Cell, Plan, make_plan
from fusebench.study.record_file import changes, read_record, results_folder
from fusebench.study.rerun import Places, make_again, options_of
from fusebench.study.run import Progress
from fusebench.study.saved_methods import folder_of, is_saved
from fusebench.study.screen import Screen

_HOME = Path(__file__).resolve().parent.parent


def show(flags: argparse.Namespace) -> int:
    """Replays; 0 when the score is the same, 1 when it is another, 2 when an input is not what it was.

    Args:
        flags: `record` (a file), `anyway`, `data_dir`, `backbone`, `fit`, `train`, `dev`, `weights`, `plugin`.

    Raises:
        InputError: the record cannot be used, or something that it names is not there.
    """
    load_plugins(flags.plugin)
    record, screen = read_record(flags.record), Screen()
    places = places_of(flags)
    again = look_up(record, flags.record, places)
    changed = changed_inputs(record, again)
    for line in changed:
        screen.print(f"changed: {line}", highlight=False, markup=False, soft_wrap=True)
    if changed and not flags.anyway:
        screen.print(
            f"not replayed: {len(changed)} of its inputs changed; --anyway computes the cell with what is here now.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return 2
    with LiveProgress(Screen(stderr=True)).running() as progress:
        now = replay(record, again, progress)
    difference = now.main_score - record.main_score
    same = abs(difference) <= FLOOR
    said = "the same" if same else "ANOTHER SCORE"
    with_changes = f", with {len(changed)} changed inputs" if changed else ""
    screen.print(
        f"{record.spec.method.name} on {record.spec.task.name}: {record.main_score:.6f} then, "
        f"{now.main_score:.6f} now, difference {difference:+.1e}: {said}{with_changes}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0 if same else 1


def places_of(flags: argparse.Namespace) -> Places:
    """Where the flags say that things are."""
    return Places(flags.data_dir, flags.backbone, flags.fit, tuple(flags.train or ()), flags.dev, flags.weights)


def replay(record: Record, again: Again, progress: Progress = lambda stage, done, total: None) -> Record:
    """The cell computed anew, in an empty folder that is gone afterwards.

    Raises:
        InputError: the cell fails now.
    """
    made = make_again(again.options, progress=progress)
    found = [one for one in made.records if _names(one.spec) == _names(record.spec)]
    if not found:
        method, task, _ = _names(record.spec)
        why = "; ".join(made.failures.values())
        raise InputError(f"{method} on {task} cannot be computed now: {why}.")
    return found[0]


def changed_inputs(record: Record, again: Again) -> list[str]:
    """Every input of the record that is another one now, a sentence each; nothing is computed."""
    spec, now = record.spec, again.cell.spec
    lines = [f"{where}: {a} then, {b} now" for where, a, b in changes(spec, now)]
    if spec.code != now.code or (spec.train and now.train and spec.train.code != now.train.code):
        lines.append(_changed_code(record))
    return lines


@dataclass(frozen=True)
class Again:
    """What a record asks for, looked up anew."""

    options: Options
    plan: Plan
    cell: Cell


def look_up(record: Record, path: Path, places: Places, *, saved: bool | None = None) -> Again:
    """Loads everything that the record's cell is made of.

    Args:
        record: of the cell.
        path: its file.
        places: of what it names.
        saved: take trained weights as a run left them; None does so if the record's cell did.

    Raises:
        InputError: something that it names is not there.
    """
    spec = record.spec
    if saved is None:
        saved = spec.weights_sha256 is not None
    options = options_of(RunSpec.of([spec.model_copy(update={"weights_sha256": None})]), places)
    if saved:
        method = parse(spec.method.name)
        folder = places.weights or folder_of(results_folder(path), spec, method)
        if not is_saved(folder):
            raise InputError(
                f"{method.name} needs saved weights, and {folder} holds none; name their folder by --weights."
            )
        options = replace(options, methods=("+".join([str(folder), *map(str, method.transforms)]),))
    plan = make_plan(options)
    found = [cell for cell in plan.cells if _names(cell.spec) == _names(spec)]
    if not found:
        names = ", ".join(cell.method.name for cell in plan.cells)
        raise InputError(f"{spec.method.name} with seed {spec.seed} is not what is made of it now: {names}.")
    return Again(options, plan, found[0])


def _names(spec: Spec) -> tuple[str, str, int | None]:
    return spec.method.name, spec.task.name, spec.seed


def _changed_code(record: Record) -> str:
    """Which source files changed, where the clone has the commit that the record was made from."""
    made = record.environment
    if made.git_commit is None:
        return "source files: the record names no commit, so the changed ones cannot be named"
    if not (_HOME / ".git").exists():
        return f"source files: changed since commit {made.git_commit[:12]}; a clone of the project can name them"
    command = ["git", "diff", "--name-only", made.git_commit, "--", *_sources(record.spec)]
    answer = subprocess.run(command, cwd=_HOME, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return f"source files: this clone has no commit {made.git_commit[:12]}, so the changed ones cannot be named"
    names = ", ".join(answer.stdout.split()) or "none of those committed"
    dirty = "; the record was made with uncommitted changes, which nothing can name" if made.git_dirty else ""
    return f"source files since commit {made.git_commit[:12]}: {names}{dirty}"


def _sources(spec: Spec) -> list[str]:
    """Paths below the project's root of the files that the specification's code hashes are over."""
    method = parse(spec.method.name)
    parts = [part.card.part.__module__ for part in method.parts]
    modules = {*code_identity.closure((*code_identity._COMMON, *parts)), code_identity._CONDUCTOR}
    if spec.train:
        trained = [part.card.part.__module__ for part in method.stem.parts]
        modules |= {*code_identity.closure(("fusebench.methods.training", *trained)), *code_identity._TRAINERS}
    named = sorted(name for name in modules if name.startswith("fusebench."))
    return [name.removeprefix("fusebench.").replace(".", "/") + ".py" for name in named]

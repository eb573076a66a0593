"""What a run does before it computes: what is damaged in its results folder goes to quarantine and is made anew."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from fusebench.benchmarks.atomic import disk_error
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.sample_files import read_samples, sample_path
from fusebench.benchmarks.sealed_json import unsealed
from fusebench.benchmarks.store import Store, own_paths
from fusebench.errors import InputError
from fusebench.methods.checkpoint import read_tensors
from fusebench.study import saved_methods
from fusebench.study.pass_journal import PassJournals
from fusebench.study.plan import Plan
from fusebench.study.training_log import require_log

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_LEFT_BEHIND_SECONDS = 3600.0  # no file takes that long to write


def quarantine_cells(plan: Plan, store: Store) -> list[str]:
    """Moves damaged records, suites, samples and results of mteb away; a line on each.

    The record of a cell whose samples or whose result of mteb are damaged goes with them, so that the cell is
    computed anew. Temporary files that a killed run left behind are deleted.

    Raises:
        InputError: if the disk refuses, or a link in the folder leads out of it.
    """
    store.require_no_way_out()
    finished, _ = store.finished(), store.suites()
    for spec_id in {cell.spec.spec_id for cell in plan.cells} & finished.keys():
        for path, reason in _damage_beside(finished[spec_id], store):
            store.reject(path, reason)
            store.reject(store.place_of(spec_id), f"belongs to {path.name}, which {reason}")
    _remove_left_behind(store.out)
    PassJournals.forget_abandoned(store.out)
    return _quarantined(store)


def quarantine_trainings(folders: Iterable[Path], store: Store) -> list[str]:
    """Moves damaged checkpoints away, and damaged weights and logs of trainings that are to be done; a line on each.

    Raises:
        InputError: if the disk refuses.
    """
    for path, reason in (*_damaged_trainings(folders, store.out), *_damaged_checkpoints(store.out)):
        store.reject(path, reason)
    return _quarantined(store)


def forget_finished_checkpoints(out: Path) -> None:
    """Deletes checkpoints of trainings whose weights are all there: a run that is killed while it saves leaves one.

    Raises:
        InputError: if the disk refuses.
    """
    for path in sorted((out / "checkpoints").glob("*.safetensors")):
        try:
            names = read_tensors(path)[1].get("names", [])
        except InputError:  # another run has just deleted it, or the next one moves it away
            continue
        folders = [out / "trained" / re.sub(r"-trial\d+$", "", name) for name in names]
        if folders and all(map(saved_methods.is_intact, folders)):
            path.unlink(missing_ok=True)


def _quarantined(store: Store) -> list[str]:
    lines = [f"{path.relative_to(store.out)} {reason}" for path, reason in store.damaged]
    store.quarantine()
    return lines


def _damage_beside(record: Record, store: Store) -> Iterator[tuple[Path, str]]:
    """What is wrong with a cell's samples and with mteb's result; neither needs to be there, as in a clone."""
    samples, result = sample_path(store.out, record), store.result_path(record)
    if samples.exists():
        try:
            read_samples(store.out, record)
        except InputError as error:
            yield samples, f"is damaged ({error})"
    if result.exists():
        try:
            unsealed(result.read_bytes())
        except ValueError as error:
            yield result, str(error)


def _damaged_trainings(folders: Iterable[Path], out: Path) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        if saved_methods.is_saved(folder):
            try:
                saved_methods.load(folder).require_weights()
            except InputError as error:
                yield folder, f"is damaged ({error})"
        for log in sorted((out / "training").glob(f"{folder.name}*.jsonl")):
            try:
                require_log(log)
            except ValueError as error:
                yield log, f"is no log ({error})"


def _damaged_checkpoints(out: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted((out / "checkpoints").glob("*.safetensors")):
        try:
            read_tensors(path)
        except InputError as error:
            if path.exists():  # else a run that finished has just deleted it
                yield path, f"is damaged ({error})"


def _remove_left_behind(out: Path) -> None:
    """Deletes temporary files of processes that were killed; those of living ones are younger."""
    oldest = time.time() - _LEFT_BEHIND_SECONDS
    for path in [*out.glob(".*.tmp"), *own_paths(out)]:
        try:
            if _TEMPORARY.fullmatch(path.name) and path.stat().st_mtime < oldest:
                path.unlink()
        except FileNotFoundError:  # another run was faster
            continue
        except OSError as error:
            raise disk_error("remove", path, error) from error

"""A run in a results folder that other runs may write to: what is damaged is set aside, what is trained is locked."""

from __future__ import annotations

from collections.abc import Callable

from fusebench.benchmarks.mounts import locks_are_local
from fusebench.benchmarks.store import Store
from fusebench.study.damage import forget_finished_checkpoints, quarantine_cells, quarantine_trainings
from fusebench.study.plan import Plan
from fusebench.study.run import Outcome, Progress, run
from fusebench.study.training_locks import trainings_locked


def look_over(plan: Plan, store: Store, say: Callable[[str], None]) -> None:
    """Before a run: says what locks are worth in the folder, and moves damaged cells of the plan to quarantine."""
    if locks_are_local(store.out):
        say(f"note: locks in {store.out} hold on this machine alone, as its mount says; start no run on another one")
    for line in quarantine_cells(plan, store):
        say(f"to quarantine: {line}")


def run_in_shared_folder(plan: Plan, store: Store, say: Callable[[str], None], progress: Progress) -> Outcome:
    """Runs what is missing or damaged, while no other run trains the same in this folder.

    Args:
        plan: of the run.
        store: its results folder.
        say: takes sentences for the user, on what is waited for and what was set aside.
        progress: of the run.

    Raises:
        InputError: if the folder cannot be written, or its file system has no locks.
    """
    look_over(plan, store, say)
    finished = {} if plan.options.rerun else store.finished()

    def waiting(method: str) -> None:
        say(f"another run is training {method} in {store.out}: waiting for it")

    with trainings_locked(plan, finished, waiting) as to_train:
        for line in quarantine_trainings(to_train, store):
            say(f"to quarantine: {line}")
        outcome = run(plan, store, progress)
        forget_finished_checkpoints(store.out)
        return outcome

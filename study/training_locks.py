"""Keeps two runs in one results folder from training the same method at the same time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fusebench.benchmarks.lock import locked
from fusebench.study import saved_methods
from fusebench.study.plan import Cell, Plan


@contextmanager
def trainings_locked(
    plan: Plan, finished: Collection[str], waiting: Callable[[str], None] = lambda name: None
) -> Iterator[list[Path]]:
    """Holds a lock for each training that is to be done, and gives the folders that their weights will be in.

    Waits for runs that are at one of them; what they have trained in the meantime is no longer to be done.

    Args:
        plan: of the run.
        finished: ids of the cells that need not be computed.
        waiting: called with the name of a method that another run is training.

    Raises:
        InputError: if the file system of the results folder has no locks.
    """
    to_train = []
    with ExitStack() as held:
        # In one order for all runs, so that no two wait for each other.
        for training_id, cell in sorted(trainings_of(plan, finished).items()):
            folder = saved_methods.folder_of(plan.options.out, cell.spec, cell.method)
            with ExitStack() as this:
                path = plan.options.out / "locks" / f"{training_id}.lock"
                name = cell.method.stem.name
                this.enter_context(locked(path, waiting=lambda name=name: waiting(name)))  # type: ignore[misc]
                if plan.options.rerun or not saved_methods.is_intact(folder):
                    to_train.append(folder)
                    held.push(this.pop_all())
        yield to_train


def trainings_of(plan: Plan, finished: Collection[str]) -> dict[str, Cell]:
    """A cell of each training whose weights a run needs, by training id; weights named by their folder apart."""
    return {
        cell.spec.training_id: cell
        for cell in plan.cells
        if cell.method.trained and cell.saved is None and cell.spec.spec_id not in finished
    }

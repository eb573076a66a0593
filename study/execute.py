"""Computes what a plan lacks, in this process or on the workers of a Ray cluster: the same records either way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fusebench.benchmarks.mirror import mirror_of
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.study import saved_methods
from fusebench.study.damage import forget_finished_checkpoints
from fusebench.study.dispatch import compute_on
from fusebench.study.plan import Plan
from fusebench.study.ray_pool import LOCAL, Resources, ray_pool
from fusebench.study.run import Outcome, Progress, missing_cells
from fusebench.study.shared_folder import look_over, run_in_shared_folder
from fusebench.study.training_locks import trainings_of
from fusebench.study.unit_work import Job


@dataclass(frozen=True)
class Executor:
    """Where cells are computed.

    Attributes:
        kind: `local`, `ray`, or `ray:ADDRESS`.
        cpus: of this process, or of each unit; its threads. None: all that torch takes, and 1 a unit.
        gpus: of each unit on Ray, fractions allowed. None: one where the backbone is on a GPU, else none.
        plugins: files that workers load too.
    """

    kind: str = "local"
    cpus: float | None = None
    gpus: float | None = None
    plugins: tuple[Path, ...] = ()


def execute(
    plan: Plan,
    store: Store,
    executor: Executor,
    progress: Progress = lambda stage, done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Runs what is missing or damaged; `say` gets a line on whatever a user should know.

    Raises:
        InputError: if the results folder cannot be used, or there is no such cluster.
    """
    mirror = mirror_of(store.out)
    if mirror is not None:
        mirror.fetch_weights(_weights_wanted(plan, store))
    outcome = _executed(plan, store, executor, progress, say)
    if mirror is not None:
        mirror.exchange()  # boards are to know what other machines have finished meanwhile
    return outcome


def _weights_wanted(plan: Plan, store: Store) -> set[Path]:
    """Folders of the trained methods that missing cells read, if they are there."""
    if plan.options.rerun:
        return set()
    missing = trainings_of(plan, store.finished()).values()
    return {saved_methods.folder_of(store.out, cell.spec, cell.method) for cell in missing}


def _executed(
    plan: Plan, store: Store, executor: Executor, progress: Progress, say: Callable[[str], None]
) -> Outcome:
    if executor.kind != "local":
        return _on_ray(plan, store, executor, progress, say)
    if executor.gpus is not None:
        raise InputError("--gpus says what a unit occupies on Ray: add --executor ray, or choose with --device.")
    if executor.cpus is not None:
        torch.set_num_threads(_threads(executor.cpus))
    return run_in_shared_folder(plan, store, say, progress)


def _on_ray(plan: Plan, store: Store, executor: Executor, progress: Progress, say: Callable[[str], None]) -> Outcome:
    look_over(plan, store, say)
    cells = missing_cells(plan, store)
    kept = len(plan.cells) - len(cells)
    if not cells:
        return Outcome(kept=kept)
    device = plan.backbone.device.type
    cpus = 1.0 if executor.cpus is None else executor.cpus
    needs = Resources(cpus, float(device == "cuda") if executor.gpus is None else executor.gpus)
    if device == "cuda" and not needs.gpus:
        raise InputError("--gpus 0: the backbone is on a GPU; give a unit one or part of one, or add --device cpu.")
    tuned = plan.options.training.regime == "finetune"
    if tuned and device == "cuda" and (processes := plan.options.training.processes) > max(1.0, needs.gpus):
        raise InputError(
            f"--processes {processes} takes a GPU each, and a unit has {needs.gpus:g}: give --gpus {processes}."
        )
    # Which of a machine's GPUs is whose is Ray's business.
    job = Job(replace(plan.options, device=device), executor.plugins, Path.cwd(), _threads(cpus))
    address = executor.kind.partition(":")[2] or LOCAL
    with ray_pool(address, job, needs) as pool:
        if len(pool.machines) > 1 and mirror_of(store.out) is not None:
            raise InputError(
                "Ray's workers on several machines share --out as a folder: name one that all of them see, or give a "
                "command of its own with the bucket and --executor ray on each machine."
            )
        say(
            f"Ray: {len(pool.machines)} machine{'s' * (len(pool.machines) != 1)}, {pool.slots} units at a time, "
            f"each with {needs.cpus:g} CPUs and {needs.gpus:g} GPUs"
        )
        outcome = compute_on(pool, plan, cells, progress)
    forget_finished_checkpoints(store.out)
    return replace(outcome, kept=kept)


def _threads(cpus: float) -> int:
    return max(1, int(cpus))

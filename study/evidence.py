"""Brings together what a comparison needs: records, their samples, and the tasks' gold labels and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusebench.benchmarks import task_data
from fusebench.benchmarks.board_rows import age
from fusebench.benchmarks.clusters import task_clusters
from fusebench.benchmarks.comparison import Contender
from fusebench.benchmarks.record import Record
from fusebench.benchmarks.resampling import PartEvidence, TaskEvidence
from fusebench.benchmarks.sample_files import read_samples
from fusebench.benchmarks.samples import Samples, gold_scores, part_scores
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.errors import InputError
from fusebench.study.compare_choice import Variant, labels

_TOLERANCE = {"STS": 2e-6, "Retrieval": 7e-6}  # mteb rounds retrieval metrics to five places


@dataclass(frozen=True, eq=False)
class Evidence:
    """The contenders, in order, and their numbers on the tasks, in order."""

    contenders: tuple[Contender, ...]
    tasks: tuple[TaskEvidence, ...]


def gather(chosen: Sequence[Variant], tasks: Sequence[LoadedTask], out: Path, *, match_seeds: bool) -> Evidence:
    """Records and samples of every variant on every task.

    Args:
        chosen: With at least one record on each task.
        tasks: As loaded now.
        out: The results folder.
        match_seeds: Leave out seeds that another seeded variant lacks, unless they have none in common.

    Raises:
        InputError: Records were made with other data than the tasks hold, a variant has no seed that all tasks have,
            or samples are missing, damaged, or give another score than their record.
    """
    cells = [[_newest(variant, task) for task in tasks] for variant in chosen]
    seeds = [_common_seeds(variant, of_tasks) for variant, of_tasks in zip(chosen, cells, strict=True)]
    seeded = [set(own) for own in seeds if own != (None,)]
    if match_seeds and seeded and (common := set.intersection(*seeded)):
        seeds = [own if own == (None,) else tuple(s for s in own if s in common) for own in seeds]
    evidence = []
    for column, task in enumerate(tasks):
        samples = [
            _read(out, of_tasks[column][seed], task)
            for of_tasks, own in zip(cells, seeds, strict=True)
            for seed in own
        ]
        evidence.append(_task_evidence(task, samples))
    contenders = (Contender(label, own) for label, own in zip(labels(chosen), seeds, strict=True))
    return Evidence(tuple(contenders), tuple(evidence))


def _newest(variant: Variant, task: LoadedTask) -> dict[int | None, Record]:
    """By seed, the newest record on the data that the task holds now."""
    name, sha256 = task.spec.name, task.spec.data_sha256
    records = sorted(variant.cells[name], key=age)
    usable = [record for record in records if record.spec.task.data_sha256 == sha256]
    if not usable:
        theirs = sorted({record.spec.task.data_sha256[:12] for record in records})
        raise InputError(
            f"{variant.method!r} was scored on other data of {name} ({', '.join(theirs)}) than are there now "
            f"({sha256[:12]}): name the folder with the data of then by --data-dir, or run it again on these"
        )
    return {record.spec.seed: record for record in usable}


def _common_seeds(variant: Variant, of_tasks: Sequence[dict[int | None, Record]]) -> tuple[int | None, ...]:
    common = set(of_tasks[0]).intersection(*of_tasks[1:])
    if not common:
        raise InputError(f"{variant.method!r} has no seed that was run on all tasks: run the missing ones")
    return tuple(sorted(common, key=lambda seed: -1 if seed is None else seed))


def _read(out: Path, record: Record, task: LoadedTask) -> Samples:
    samples = read_samples(out, record)
    where = f"the samples of {record.spec.method.name!r} on {task.spec.name}"
    places = [(part.subset, part.split) for part in samples.parts]
    if places != [(subset, split) for subset, split, _ in task_data.parts(task.task)] or not _same_items(
        samples, task
    ):
        raise InputError(f"{where} are of other rows or queries than the task has: run the cell again with --rerun")
    score = float(np.mean(part_scores(samples, task)))
    if abs(score - record.main_score) > _TOLERANCE[task.spec.type]:
        raise InputError(
            f"{where} give {score:.6f}, the record says {record.main_score:.6f}: run the cell again with --rerun"
        )
    return samples


def _same_items(samples: Samples, task: LoadedTask) -> bool:
    for part, (_, _, data) in zip(samples.parts, task_data.parts(task.task), strict=True):
        if isinstance(data, dict):
            # mteb leaves out queries whose judgements are all zero
            if not set(part.items.tolist()) <= set(data["queries"]["id"]):
                return False
        elif not np.array_equal(part.items, np.arange(len(data))):
            return False
    return True


def _task_evidence(task: LoadedTask, samples: Sequence[Samples]) -> TaskEvidence:
    gold = gold_scores(task)
    parts = []
    for number, (subset, split, data) in enumerate(task_data.parts(task.task)):
        items = samples[0].parts[number].items
        if any(not np.array_equal(other.parts[number].items, items) for other in samples):
            raise InputError(f"{task.spec.name}: the samples are not all of the same items: run again with --rerun")
        values = np.stack([one.parts[number].values for one in samples])
        parts.append(PartEvidence(values, gold.get((subset, split)), task_clusters(task.task, data, items)))
    return TaskEvidence(task.spec.name, task.spec.type, tuple(parts))

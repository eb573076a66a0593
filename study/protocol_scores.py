"""The scores of a protocol from stored cosines: which pairs count, and how parts of a task are joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from fusebench.benchmarks.pair_parts import aggregated, semeval_test, sub_corpora
from fusebench.benchmarks.sample_files import read_samples
from fusebench.benchmarks.samples import Samples, gold_scores, part_scores
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.errors import InputError
from fusebench.study.plan import Plan
from fusebench.study.protocol_card import Protocol

Scores = Mapping[str, Mapping[str, list[float]]]  # method -> task -> percent, one a seed

_YEARS = ("STS12", "STS13", "STS14", "STS15", "STS16")


@dataclass(frozen=True, eq=False)
class Counted:
    """How a task's pairs count.

    Attributes:
        rows: True where a pair counts; None: all do.
        parts: the sub-corpus of each pair; None: the task is scored as mteb scores it.
    """

    rows: Bool[np.ndarray, " pairs"] | None = None
    parts: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class CountedTasks:
    """What is known before a run starts.

    Attributes:
        counted: by task, those that can be scored.
        missing: by task, why there is no score.
    """

    counted: Mapping[str, Counted]
    missing: Mapping[str, str]


def counted_tasks(card: Protocol, plan: Plan) -> CountedTasks:
    """Looks up sub-corpora and test parts.

    Raises:
        InputError: the data do not tell them, and the run was not asked to go on with what is available.
    """
    loaded = {task.spec.name: task for task in plan.tasks}
    counted: dict[str, Counted] = {}
    missing: dict[str, str] = {}
    for name in card.tasks:
        if name not in loaded:
            missing[name] = "the data folder lacks it"
            continue
        try:
            counted[name] = _counted(card, loaded[name], plan.options.data_dir)
        except InputError as error:
            if not plan.options.available_only:
                reason = str(error).rstrip(".")
                raise InputError(f"--protocol {card.name}: {reason}; --available-only goes on without.") from error
            missing[name] = str(error)
    return CountedTasks(counted, missing)


def _counted(card: Protocol, task: LoadedTask, data_dir: Path | None) -> Counted:
    if task.spec.name == "SICK-R" and card.sick == "SemEval test":
        return Counted(rows=semeval_test(task, data_dir))
    if task.spec.name in _YEARS and card.aggregation != "all":
        return Counted(parts=sub_corpora(task, data_dir))
    return Counted()


def protocol_scores(card: Protocol, plan: Plan, store: Store, tasks: CountedTasks) -> Scores:
    """The scores of the plan's finished cells, in percent.

    Raises:
        InputError: samples of a cell are missing or damaged.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    records = store.finished()
    for cell in plan.cells:
        name, record = cell.task.spec.name, records.get(cell.spec.spec_id)
        if record is not None and name in tasks.counted:
            score = task_score(cell.task, read_samples(store.out, record), tasks.counted[name], card)
            weights = f" (weights {cell.saved.weights_sha256[:8]})" if cell.saved else ""
            found[cell.method.name + weights][name].append(100 * score)
    return found


def task_score(task: LoadedTask, samples: Samples, counted: Counted, card: Protocol) -> float:
    """One cell's score under the protocol, as a fraction."""
    if counted.rows is None and counted.parts is None:
        return float(np.mean(part_scores(samples, task)))
    ((_, gold),) = gold_scores(task).items()
    (part,) = samples.parts
    rows = np.ones(len(gold), dtype=bool) if counted.rows is None else counted.rows
    how = "all" if counted.parts is None else card.aggregation
    return aggregated(gold[rows], part.values[rows], counted.parts or (), how)

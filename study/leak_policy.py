"""What a run does about test data among its training and dev rows: refuses it, leaves it out, or says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fusebench.benchmarks.record import Overlap
from fusebench.benchmarks.restriction import restrictable, restricted
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.errors import InputError
from fusebench.study.leak_words import dev_note, dropped_note, refusal, task_notes
from fusebench.study.leaks import LeakedPair, TaskForms, TaskLeaks, find_leaks, row_pairs, task_forms, union
from fusebench.study.training_data import TrainRows


@dataclass(frozen=True)
class LeakReport:
    """Rows that hold no test pair but the published ones, and what else tasks and rows have in common.

    Attributes:
        train: the training rows in their order.
        dev: the dev rows.
        notes: for people.
        found: of each row set, by the hash of its rows, the leaks of all tasks by name.
    """

    train: tuple[TrainRows, ...]
    dev: TrainRows | None
    notes: tuple[str, ...]
    found: dict[str, dict[str, TaskLeaks]]

    def overlap(self, task: str, row_sets: Iterable[TrainRows]) -> Overlap:
        """What of a task occurs in some of these row sets, such as those that one method saw."""
        leaks = self._union(task, row_sets)
        both = leaks.both
        return Overlap(
            texts=len(leaks.of.forms),
            known_texts=leaks.known_texts,
            pairs=None if both is None else len(both),
            pairs_both_known=None if both is None else int(both.sum()),
            main_score_without=None,
        )

    def without_known(self, task: LoadedTask, row_sets: Iterable[TrainRows]) -> LoadedTask | None:
        """The task without the pairs whose two texts are known, where a score on them is asked for.

        That is where a row set is known to hold test pairs of this task; None where none is, where none of the pairs
        is known, and where those left have no correlation.
        """
        row_sets = list(row_sets)
        if not any(task.spec.name in rows.known_leaks for rows in row_sets):
            return None
        both = self._union(task.spec.name, row_sets).both
        if both is None or not both.any() or not restrictable(task, ~both):
            return None
        return restricted(task, ~both)

    def _union(self, task: str, row_sets: Iterable[TrainRows]) -> TaskLeaks:
        return union([self.found[rows.spec.sha256][task] for rows in row_sets])


def check_leaks(
    train: Sequence[TrainRows], dev: TrainRows | None, tasks: Sequence[LoadedTask], *, drop: bool
) -> LeakReport:
    """Refuses rows that are test pairs of a task, or leaves them out, and counts what texts both have.

    STS-B is made of pairs of STS12 to STS16: `stsb-train` and `stsb-dev` may hold these, with a note and a second
    score without them (`LeakReport.without_known`). Single texts that occur in a task are counted, never refused.

    Args:
        train: the rows of all methods; the same rows may come twice.
        dev: the dev rows.
        tasks: to be judged.
        drop: whether rows that would be refused are left out instead.

    Raises:
        InputError: if a row is a test pair and `drop` is false, or nothing is left of a row set.
    """
    forms = [task_forms(task) for task in tasks]
    given = {rows.spec.sha256: rows for rows in [*train, *([dev] if dev else [])]}
    checked = {key: _check(rows, forms, drop=drop) for key, rows in given.items()}
    refused = [(one.before, pair) for one in checked.values() for pair in one.refused]
    if refused and not drop:
        raise InputError(refusal(refused))
    ours = tuple(checked[rows.spec.sha256].after for rows in train)
    its_dev = checked[dev.spec.sha256].after if dev else None
    notes = [dropped_note(one.before, one.after, one.refused) for one in checked.values() if one.refused]
    if its_dev is not None and (shared := _shared_rows(ours, its_dev)):
        notes.append(dev_note(its_dev, shared))
    found = {one.after.spec.sha256: one.leaks for one in checked.values()}
    left = [one.after for one in checked.values()]
    report = LeakReport(ours, its_dev, (), found)
    judged_twice = {task.spec.name for task in tasks if report.without_known(task, left) is not None}
    notes += task_notes(left, [[found[rows.spec.sha256][task.task] for rows in left] for task in forms], judged_twice)
    return replace(report, notes=tuple(notes))


@dataclass(frozen=True)
class _Checked:
    """A row set before and after, the test pairs that it must not hold, and the leaks of what is left."""

    before: TrainRows
    after: TrainRows
    refused: tuple[LeakedPair, ...]
    leaks: dict[str, TaskLeaks]


def _check(rows: TrainRows, forms: Sequence[TaskForms], *, drop: bool) -> _Checked:
    leaks = {one.of.task: one for one in find_leaks(rows, forms)}
    refused = tuple(pair for name, one in leaks.items() if name not in rows.known_leaks for pair in one.pairs)
    if not refused or not drop:
        return _Checked(rows, rows, refused, leaks)
    left = rows.without({row for pair in refused for row in pair.train_rows})
    return _Checked(rows, left, refused, {one.of.task: one for one in find_leaks(left, forms)})


def _shared_rows(train: Sequence[TrainRows], dev: TrainRows) -> int:
    """How many dev pairs are training pairs; best weights chosen on these are chosen by what was learnt by heart."""
    trained = {pair for rows in train if rows.kind != "sentences" for pair in row_pairs(rows)}
    return sum(pair in trained for pair in row_pairs(dev))

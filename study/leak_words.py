"""What people are told of test data among training and dev rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from fusebench.study.leaks import LeakedPair, TaskLeaks, union
from fusebench.study.training_data import TrainRows

_SHOWN = 10
_WIDTH = 60

# SICK and parts of these tasks describe photos and videos, as do Flickr30k and the premises of SNLI.
_CAPTIONED = ("STS12", "STS14", "STS15", "STSBenchmark")
_STSB_PARTS = {"stsb-train": "training", "stsb-dev": "dev"}


def refusal(leaked: Sequence[tuple[TrainRows, LeakedPair]]) -> str:
    """How many test pairs are among the rows, where, the first ten of them, and the ways out."""
    counts = Counter((name, pair.task) for name, pair in {(rows.spec.name, pair): None for rows, pair in leaked})
    where = listed([f"{number} of {task} in {name}" for (name, task), number in counts.items()])
    tasks = listed(list(dict.fromkeys(pair.task for _, pair in leaked)))
    lines = [
        f"test pairs are among the training or dev rows, {where}: leave those rows out with --drop-leaks, or run "
        f"without {tasks}. Rows, counted from 1:"
    ]
    for rows, pair in leaked[:_SHOWN]:
        first = pair.train_rows[0]
        texts = " | ".join(shortened(column[first]) for column in rows.columns)
        lines.append(f"  {rows.spec.name} row {first + 1} is {_place(pair)}: {texts}")
    if len(leaked) > _SHOWN:
        lines.append(f"  and {len(leaked) - _SHOWN} more")
    return "\n".join(lines)


def _place(pair: LeakedPair) -> str:
    subset = "" if pair.subset == "default" else f" {pair.subset}"
    return f"{pair.task}{subset} {pair.split} row {pair.row + 1}"


def shortened(text: str) -> str:
    """One line of at most sixty characters."""
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."


def dropped_note(before: TrainRows, after: TrainRows, pairs: Sequence[LeakedPair]) -> str:
    """How many rows were left out, and why."""
    tasks = listed(list(dict.fromkeys(pair.task for pair in pairs)))
    return (
        f"{before.spec.name}: {before.spec.count - after.spec.count} of {before.spec.count} rows are left out, "
        f"because they are test pairs of {tasks}"
    )


def dev_note(dev: TrainRows, shared: int) -> str:
    """That the dev rows were trained on."""
    return (
        f"dev rows {dev.spec.name}: {shared} of {dev.spec.count} are training rows too, where learning by heart "
        "counts as learning"
    )


def task_notes(
    row_sets: Sequence[TrainRows], leaks: Sequence[Sequence[TaskLeaks]], judged_twice: Collection[str]
) -> list[str]:
    """What of each task occurs in the rows, and which rows are of a task's domain.

    Args:
        row_sets: distinct.
        leaks: for each task, those of each row set.
        judged_twice: tasks that are judged with and without the pairs whose two texts are known.
    """
    notes, clean = [], []
    for of_sets in leaks:
        note = _task_note(row_sets, of_sets, judged_twice)
        if note:
            notes.append(note)
        else:
            clean.append(of_sets[0].of.task)
    if clean:
        notes.append(f"no text of {listed(clean, 'or')} occurs in {_names(row_sets)}")
    return notes + _domain_notes(row_sets, [of_sets[0].of.task for of_sets in leaks])


def _task_note(
    row_sets: Sequence[TrainRows], of_sets: Sequence[TaskLeaks], judged_twice: Collection[str]
) -> str | None:
    whole = union(of_sets)
    task, both = whole.of.task, whole.both
    if not whole.known_texts:
        return None
    where = _names([rows for rows, one in zip(row_sets, of_sets, strict=True) if one.known_texts])
    if both is None or not both.any():
        return f"{task}: {whole.known_texts} of {len(whole.of.forms)} texts occur in {where}"
    note = f"{task}: both sentences of {int(both.sum())} of {len(both)} pairs occur in {where}"
    if task in judged_twice:
        return note + "; its score is also given without these pairs"
    if any(task in rows.known_leaks for rows in row_sets):
        return note + "; too few others are left for a score without these"
    return note


def _domain_notes(row_sets: Sequence[TrainRows], tasks: Sequence[str]) -> list[str]:
    notes = []
    for name in dict.fromkeys(rows.spec.name for rows in row_sets):
        if name in ("flickr30k", "nli"):
            what = "captions" if name == "flickr30k" else "SNLI's premises are captions"
            drawn = ["STS17 (drawn from SNLI)"] if name == "nli" and "STS17" in tasks else []
            parts = [task for task in tasks if task in _CAPTIONED]
            whole = ["SICK-R"] if "SICK-R" in tasks else []
            near = whole + drawn + ([f"the caption subsets of {'/'.join(parts)}"] if parts else [])
        else:
            what = f"the {_STSB_PARTS.get(name)} part of STS-B"
            near = [task for task in tasks if task == "STSBenchmark" and name in _STSB_PARTS]
        if near:
            notes.append(f"{name}: {what}, in-domain for {listed(near)}")
    return notes


def _names(row_sets: Sequence[TrainRows]) -> str:
    return listed(list(dict.fromkeys(rows.spec.name for rows in row_sets)), "or")


def listed(words: Sequence[str], last: str = "and") -> str:
    """a; a and b; a, b and c."""
    return f" {last} ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)

"""What training rows and tasks have in common: texts, and whole pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from fusebench.benchmarks.record import TaskType
from fusebench.study.training_data import TrainRows

if TYPE_CHECKING:
    from fusebench.benchmarks.tasks import LoadedTask

Pair = tuple[str, str]


def normal_form(text: str) -> str:
    """A text without case, white space and punctuation: its lower-cased letters and digits, run together.

    Up to one in ten that is not ASCII is dropped too: the tokenised STS sets hold damaged quotation marks that
    count as letters. Texts in other scripts keep theirs.
    """
    letters = re.sub(r"[\W_]+", "", text.lower())
    if letters.isascii():
        return letters
    plain = letters.encode("ascii", "ignore").decode()
    return plain if 10 * (len(letters) - len(plain)) <= len(letters) else letters


@dataclass(frozen=True, eq=False)
class TaskForms:
    """A task's texts in their normal forms; made once, compared with many row sets.

    Attributes:
        forms: distinct.
        pairs: the numbers of the forms of each pair that it judges as similar or relevant: all pairs of an STS task,
            subsets and splits one after the other; each query with each document that is relevant to it.
        places: subset, split and row of each pair; of a retrieval task, row of the query.
    """

    task: str
    type: TaskType
    forms: tuple[str, ...]
    pairs: Int[np.ndarray, "pairs 2"]
    places: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class LeakedPair:
    """A test pair that is also a training pair, in either order.

    Attributes:
        row: number of the pair; of a retrieval task, number of the query.
        train_rows: the training rows that hold it.
    """

    task: str
    subset: str
    split: str
    row: int
    train_rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TaskLeaks:
    """How much of one task occurs in some rows.

    Attributes:
        of: the task.
        known: which of its distinct texts occur in the rows.
        pairs: its pairs that are pairs of the rows.
    """

    of: TaskForms
    known: Bool[np.ndarray, " forms"]
    pairs: tuple[LeakedPair, ...]

    @property
    def known_texts(self) -> int:
        """How many of the task's distinct texts occur in the rows."""
        return int(self.known.sum())

    @property
    def both(self) -> Bool[np.ndarray, " pairs"] | None:
        """Of an STS task, the pairs of which both texts occur."""
        return self.known[self.of.pairs].all(axis=1) if self.of.type == "STS" else None

    @property
    def either(self) -> Bool[np.ndarray, " pairs"] | None:
        """Of an STS task, the pairs of which at least one text occurs."""
        return self.known[self.of.pairs].any(axis=1) if self.of.type == "STS" else None


def union(leaks: Sequence[TaskLeaks]) -> TaskLeaks:
    """What of one task occurs in any of several row sets; a pair may have each of its texts from another."""
    known = np.logical_or.reduce([one.known for one in leaks])
    return TaskLeaks(leaks[0].of, known, tuple(pair for one in leaks for pair in one.pairs))


def find_leaks(rows: TrainRows, tasks: Sequence[TaskForms]) -> tuple[TaskLeaks, ...]:
    """Compares rows with tasks, texts in their `normal_form`; texts without letters or digits never match.

    The pairs of a row are all pairs of its texts.
    """
    columns = [[normal_form(text) for text in column] for column in rows.columns]
    known = {form for column in columns for form in column} - {""}
    trained: dict[Pair, list[int]] = {}
    for number, forms in enumerate(zip(*columns, strict=True)):
        for pair in dict.fromkeys(_unordered(*two) for two in combinations(forms, 2)):
            trained.setdefault(pair, []).append(number)
    return tuple(_task_leaks(task, known, trained) for task in tasks)


def row_pairs(rows: TrainRows) -> list[Pair]:
    """The first two texts of each row, in their normal forms and without order."""
    first, second = ([normal_form(text) for text in column] for column in rows.columns[:2])
    return [_unordered(*pair) for pair in zip(first, second, strict=True)]


def task_forms(task: LoadedTask) -> TaskForms:
    """The texts and pairs of a task in their normal forms."""
    from fusebench.benchmarks import task_data

    numbers: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    places: list[tuple[str, str, int]] = []
    for subset, split, data in task_data.parts(task.task):
        (first, left), (second, right) = (
            (names, [numbers.setdefault(normal_form(text), len(numbers)) for text in texts])
            for _, names, texts in task_data.texts(task.task, data)
        )
        if task.spec.type == "STS":
            found: Iterator[tuple[int, tuple[int, int]]] = enumerate(zip(left, right, strict=True))
        else:
            by_name = dict(zip(second, right, strict=True))
            found = _relevant(dict(zip(first, left, strict=True)), by_name, data["relevant_docs"])
        for row, pair in found:
            pairs.append(pair)
            places.append((subset, split, row))
    return TaskForms(
        task.spec.name, task.spec.type, tuple(numbers), np.array(pairs, dtype=int).reshape(-1, 2), tuple(places)
    )


def _relevant(
    queries: dict[str, int], documents: dict[str, int], judgements: Any
) -> Iterator[tuple[int, tuple[int, int]]]:
    for row, (query, form) in enumerate(queries.items()):
        for document, grade in judgements.get(query, {}).items():
            if grade > 0 and document in documents:
                yield row, (form, documents[document])


def _unordered(left: str, right: str) -> Pair:
    return (left, right) if left <= right else (right, left)


def _task_leaks(task: TaskForms, known: set[str], trained: dict[Pair, list[int]]) -> TaskLeaks:
    mask = np.array([form in known for form in task.forms], dtype=bool)
    leaked: dict[LeakedPair, None] = {}
    for number in np.flatnonzero(mask[task.pairs].all(axis=1)):
        left, right = task.pairs[number]
        rows = trained.get(_unordered(task.forms[left], task.forms[right]))
        if rows:
            leaked[LeakedPair(task.task, *task.places[number], tuple(rows))] = None
    return TaskLeaks(task, mask, tuple(leaked))

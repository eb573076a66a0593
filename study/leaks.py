"""What training rows and tasks have in common: texts, and whole pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from fusebench.study.training_data import TrainRows

if TYPE_CHECKING:
    from fusebench.benchmarks.tasks import LoadedTask

Mask = Bool[np.ndarray, " pairs"]


def normal_form(text: str) -> str:
    """A text without case, white space and punctuation: its lower-cased letters and digits, run together.

    Up to one in ten that is not ASCII is dropped too: the tokenised STS sets hold damaged quotation marks that
    count as letters. Texts in other scripts keep theirs.
    """
    letters = re.sub(r"[\W_]+", "", text.lower())
    plain = letters.encode("ascii", "ignore").decode()
    return plain if 10 * (len(letters) - len(plain)) <= len(letters) else letters


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
    """How much of one task occurs in the training texts.

    Attributes:
        texts: its distinct texts.
        known_texts: how many of these are training texts.
        both: of an STS task, the pairs (subsets and splits one after the other) of which both texts are.
        either: the pairs of which at least one text is.
    """

    task: str
    texts: int
    known_texts: int
    both: Mask | None
    either: Mask | None


@dataclass(frozen=True)
class Leaks:
    """The leaks of all tasks, in their order; `pairs` is empty when no training pair is tested."""

    pairs: tuple[LeakedPair, ...]
    tasks: tuple[TaskLeaks, ...]


def find_leaks(rows: TrainRows, tasks: Sequence[LoadedTask]) -> Leaks:
    """Compares training rows with tasks, texts in their `normal_form`; texts without letters or digits never match.

    The pairs of a training row are all pairs of its texts; those of a retrieval task, a query and each document
    that is relevant to it.
    """
    columns = [[normal_form(text) for text in column] for column in rows.columns]
    known = {form for column in columns for form in column} - {""}
    trained: dict[tuple[str, str], list[int]] = {}
    for number, forms in enumerate(zip(*columns, strict=True)):
        for pair in dict.fromkeys(_unordered(*two) for two in combinations(forms, 2)):
            trained.setdefault(pair, []).append(number)
    leaked: list[LeakedPair] = []
    for task in tasks:
        for subset, split, row, pair in _test_pairs(task):
            if pair in trained and "" not in pair:
                leaked.append(LeakedPair(task.spec.name, subset, split, row, tuple(trained[pair])))
    return Leaks(tuple(dict.fromkeys(leaked)), tuple(_task_leaks(task, known) for task in tasks))


def _unordered(left: str, right: str) -> tuple[str, str]:
    return (left, right) if left <= right else (right, left)


def _task_leaks(task: LoadedTask, known: set[str]) -> TaskLeaks:
    forms = {normal_form(text) for _, text in task.inputs()}
    both = either = None
    if task.spec.type == "STS":
        found = np.array([[form in known for form in pair] for _, _, _, pair in _test_pairs(task)]).reshape(-1, 2)
        both, either = found[:, 0] & found[:, 1], found[:, 0] | found[:, 1]
    return TaskLeaks(task.spec.name, len(forms), len(forms & known), both, either)


def _test_pairs(task: LoadedTask) -> Iterator[tuple[str, str, int, tuple[str, str]]]:
    """Subset, split, row and the two texts of each pair that a task judges as similar or relevant."""
    from fusebench.benchmarks import task_data

    for subset, split, data in task_data.parts(task.task):
        columns = [
            (names, [normal_form(text) for text in texts]) for _, names, texts in task_data.texts(task.task, data)
        ]
        if task.spec.type == "STS":
            for row, forms in enumerate(zip(columns[0][1], columns[1][1], strict=True)):
                yield subset, split, row, _unordered(*forms)
        else:
            yield from ((subset, split, row, pair) for row, pair in _relevant(columns, data["relevant_docs"]))


def _relevant(columns: Any, judgements: Any) -> Iterator[tuple[int, tuple[str, str]]]:
    (queries, query_forms), (documents, document_forms) = columns
    forms = dict(zip(documents, document_forms, strict=True))
    for row, (query, form) in enumerate(zip(queries, query_forms, strict=True)):
        for document, grade in judgements.get(query, {}).items():
            if grade > 0 and document in forms:
                yield row, _unordered(form, forms[document])

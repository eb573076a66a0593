"""Pairs of a task's texts that belong together, as alignment needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fusebench.benchmarks import task_data
from fusebench.benchmarks.task_data import Role
from fusebench.benchmarks.tasks import LoadedTask

Input = tuple[Role, str]


@dataclass(frozen=True)
class PositivePairs:
    """Pairs, each text with its role, and in words which they are."""

    rule: str
    pairs: tuple[tuple[Input, Input], ...]


def positive_pairs(task: LoadedTask) -> PositivePairs:
    """Of an STS task the pairs in the top fifth of its gold scores' range, of a retrieval task those judged relevant.

    Of STS-B, whose scores go from 0 to 5, these are the pairs above 4, as in Gao et al. 2021 (SimCSE). There is
    always one: a task whose scores are all equal, or that has no relevant document, is refused when it is loaded.
    """
    data = [part for _, _, part in task_data.parts(task.task)]
    if task.spec.type == "Retrieval":
        rule = "a query and a document judged relevant to it"
        pairs = tuple(pair for part in data for pair in _judged(task.task, part))
    else:
        scores = [float(score) for part in data for score in part["score"]]
        low, high = min(scores), max(scores)
        border = low + 0.8 * (high - low)
        rule = f"gold score above {border:g}, the top fifth of {low:g} to {high:g}"
        pairs = tuple(pair for part in data for pair in _scored(task.task, part, border))
    return PositivePairs(rule, pairs)


def _scored(task: Any, data: Any, border: float) -> Iterator[tuple[Input, Input]]:
    (one, _, left), (other, _, right) = task_data.texts(task, data)
    for first, second, score in zip(left, right, data["score"], strict=True):
        if score > border:
            yield (one, first), (other, second)


def _judged(task: Any, data: Any) -> Iterator[tuple[Input, Input]]:
    of_id = {role: dict(zip(ids, texts, strict=True)) for role, ids, texts in task_data.texts(task, data)}
    for query, judged in sorted(data["relevant_docs"].items()):
        for document, grade in sorted(judged.items()):
            if grade > 0 and document in of_id["document"]:
                yield ("query", of_id["query"][query]), ("document", of_id["document"][document])

"""Checks the data of a task as it was loaded, and keeps of it what is judged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from fusebench.benchmarks.listed_dataset import ListedDataset
from fusebench.benchmarks.task_data import Role
from fusebench.errors import InputError

_OTHERS_PER_QUERY = 20  # unjudged documents that a limited corpus keeps for each query


def prepare_sts(task: Any, data: Any, limit: int | None) -> ListedDataset:
    """The rows that are used, with only the columns that are read."""
    columns = [*task.column_names, "score"]
    lacking = [column for column in columns if column not in data.column_names]
    if lacking:
        raise InputError(
            f"task {task.metadata.name}: its data has the columns {', '.join(data.column_names)} "
            f"but needs {', '.join(columns)}: rename or add {', '.join(lacking)}"
        )
    rows = data.select(range(min(limit, len(data)))) if limit else data
    chosen = ListedDataset.of(_without_none(rows.select_columns(columns), task.column_names))
    _check_sts(task.metadata.name, chosen)
    return chosen


def _check_sts(name: str, data: ListedDataset) -> None:
    gold = data["score"]
    for row, value in enumerate(gold):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(
                f"task {name}: the score of row {row} is {value!r}, not a finite number: correct the row"
            )
    reason = no_correlation(gold)
    if reason:
        raise InputError(f"task {name}: {reason}: give other pairs")


def no_correlation(gold: Sequence[float]) -> str | None:
    """Why no correlation with these scores exists, or None."""
    if len(gold) < 3:
        return f"{len(gold)} pairs are too few for a correlation"
    if min(gold) == max(gold):
        return f"all {len(gold)} scores are {gold[0]}, so no correlation exists"
    return None


def prepare_retrieval(task: Any, data: Any, limit: int | None, *, strict: bool) -> dict[str, Any]:
    """Judged queries, corpus and judgements that are used.

    Args:
        task: The mteb task.
        data: mteb's data of one subset and split.
        limit: How many queries to keep, or None.
        strict: Whether a judgement of an unknown query is an error; mteb ignores it.
    """
    name = task.metadata.name
    if data["top_ranked"] is not None:
        raise InputError(f"task {name} re-ranks given lists, which is not measured here: choose another task")
    queries, corpus = (
        _text_columns(name, "queries", data["queries"]),
        _text_columns(name, "corpus", data["corpus"]),
    )
    qrels = {query: dict(judged) for query, judged in data["relevant_docs"].items() if judged}
    _check_retrieval(name, queries["id"], corpus["id"], qrels, strict=strict)
    kept = [row for row, query in enumerate(queries["id"]) if query in qrels][:limit]
    queries = queries.select(kept)
    qrels = {query: qrels[query] for query in queries["id"]}
    if limit:
        corpus = corpus.select(_limited_corpus(corpus["id"], qrels, _OTHERS_PER_QUERY * limit))
    return {
        "corpus": ListedDataset.of(corpus),
        "queries": ListedDataset.of(queries),
        "relevant_docs": qrels,
        "top_ranked": None,
    }


def _limited_corpus(ids: Sequence[str], qrels: dict[str, dict[str, int]], others: int) -> list[int]:
    judged = {document for documents in qrels.values() for document in documents}
    unjudged = [row for row, document in enumerate(ids) if document not in judged][:others]
    return sorted([row for row, document in enumerate(ids) if document in judged] + unjudged)


def _check_retrieval(
    name: str,
    queries: Sequence[str],
    corpus: Sequence[str],
    qrels: dict[str, dict[str, int]],
    *,
    strict: bool,
) -> None:
    if not len(corpus):
        raise InputError(f"task {name}: its corpus is empty: give documents")
    for role, ids in (("query", queries), ("document", corpus)):
        seen: set[str] = set()
        for identifier in ids:
            if identifier in seen:
                raise InputError(f"task {name}: the {role} id {identifier!r} occurs twice: make the ids distinct")
            seen.add(identifier)
    unknown = sorted(qrels.keys() - set(queries))
    if strict and unknown:
        raise InputError(
            f"task {name}: a judgement names the query {unknown[0]!r}, which does not exist: add or remove it"
        )
    known, documents = set(queries), set(corpus)
    if not any(grade > 0 and d in documents for q in qrels.keys() & known for d, grade in qrels[q].items()):
        raise InputError(f"task {name}: no query has a relevant document in the corpus: correct its judgements")


def _text_columns(name: str, what: str, rows: Any) -> ListedDataset:
    kept = [column for column in ("id", "title", "text", "instruction") if column in rows.column_names]
    if "id" not in kept or "text" not in kept:
        raise InputError(
            f"task {name}: its {what} has the columns {', '.join(rows.column_names)} but needs _id, text: "
            "rename or add them"
        )
    return ListedDataset.of(_without_none(rows.select_columns(kept), kept[1:]))


def _without_none(rows: Any, columns: Sequence[str]) -> Any:
    # JSON's null is an empty text, but mteb stops at it
    for column in columns:
        values = rows[column][:]
        if None in values:
            filled = [value if value is not None else "" for value in values]
            rows = rows.remove_columns([column]).add_column(column, filled)
    return rows


def count_empty(name: str, found: Iterable[tuple[Role, Sequence[str], Sequence[str]]], *, allow: bool) -> int:
    """How many texts hold nothing but white space.

    Raises:
        InputError: There is one and `allow` is false, or a text is not a string.
    """
    count = 0
    for role, rows, values in found:
        for row, text in zip(rows, values, strict=True):
            if not isinstance(text, str):
                raise InputError(f"task {name}: the {role} {row} is not a text but {type(text).__name__}: correct it")
            if text.strip():
                continue
            if not allow:
                raise InputError(f"task {name}: the {role} {row} is empty: remove it, or pass --allow-empty-texts")
            count += 1
    return count

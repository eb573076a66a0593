"""The loaded data of one task: its texts as mteb hands them on, checks, a hash of the content, a limit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import datasets
import numpy as np

from fusebench.errors import InputError

Role = Literal["text", "query", "document"]

_OTHERS_PER_QUERY = 20  # unjudged documents that a limited corpus keeps for each query


class ListedDataset(datasets.Dataset):  # type: ignore[misc]
    """A data set whose columns are lists, as they were before `datasets` 4, and whose maps are remembered.

    mteb iterates over columns; since `datasets` 4 that is one Arrow look-up a row, most of the time of an STS
    judgement.
    """

    @classmethod
    def of(cls, dataset: Any) -> ListedDataset:
        """The same rows and columns, without row indices."""
        flat = dataset.flatten_indices(keep_in_memory=True) if dataset._indices is not None else dataset
        return cls(flat.data, info=flat.info, split=flat.split, fingerprint=flat._fingerprint)

    def __getitem__(self, key: Any) -> Any:
        column = super().__getitem__(key)
        return list(column[:]) if isinstance(key, str) else column

    def select(self, indices: Iterable[int], *args: Any, **kwargs: Any) -> Any:
        """The rows at these indices; the same object when they are all rows in order."""
        indices = indices if isinstance(indices, range) else list(indices)
        everything = range(len(self))
        if indices == everything or (len(indices) == len(self) and all(map(int.__eq__, indices, everything))):
            return self
        return super().select(indices, *args, **kwargs)

    def map(self, function: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The mapped data set, computed once for each function: many methods are judged on the same rows."""
        known: dict[Any, Any] = self.__dict__.setdefault("_known_maps", {})
        if function not in known:
            known[function] = super().map(function, *args, **kwargs)
        return known[function]


def part(task: Any, subset: str, split: str) -> Any:
    """The data of one subset and split, found as mteb finds it."""
    if subset not in task.dataset and subset == "default":
        return task.dataset[split]
    return task.dataset[subset][split]


def parts(task: Any) -> list[tuple[str, str, Any]]:
    """Subset, split and data of everything that mteb will judge."""
    return [(subset, split, part(task, subset, split)) for subset in task.hf_subsets for split in task.eval_splits]


def texts(task: Any, data: Any) -> Iterator[tuple[Role, Sequence[str], Sequence[str]]]:
    """Role, row names and texts of each list that mteb will hand to `encode`."""
    from mteb._create_dataloaders import _retrieval_texts
    from mteb.types import PromptType

    if isinstance(data, dict):
        for role, rows, kind in (
            ("query", data["queries"], PromptType.query),
            ("document", data["corpus"], PromptType.document),
        ):
            yield role, list(rows["id"]), list(_retrieval_texts(rows, kind)[:])  # type: ignore[misc]
        return
    for column, kind in zip(task.column_names, (task.input1_prompt_type, task.input2_prompt_type), strict=True):
        rows = list(data[column])
        yield kind.value if kind else "text", [f"{column} of row {i}" for i in range(len(rows))], rows


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
    if len(gold) < 3:
        raise InputError(f"task {name}: {len(gold)} pairs are too few for a correlation: give at least 3")
    if min(gold) == max(gold):
        raise InputError(
            f"task {name}: all {len(gold)} scores are {gold[0]}, so no correlation exists: give other pairs"
        )


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


def content_sha256(task: Any) -> str:
    """Hash of the texts, ids, scores and judgements that are used, wherever they came from."""
    digest = hashlib.sha256()
    for subset, split, data in parts(task):
        _add(digest.update, [subset, split])
        for role, _, values in texts(task, data):
            _add(digest.update, [role])
            _add(digest.update, values)
        if not isinstance(data, dict):
            digest.update(np.asarray(data["score"], dtype="<f8").tobytes())
            continue
        _add(digest.update, data["queries"]["id"])
        _add(digest.update, data["corpus"]["id"])
        for query, judged in sorted(data["relevant_docs"].items()):
            _add(digest.update, [query, *(f"{grade} {document}" for document, grade in sorted(judged.items()))])
    return digest.hexdigest()


def _add(update: Callable[[bytes], None], values: Sequence[str]) -> None:
    # lengths first: without them ["ab", "c"] and ["a", "bc"] would be the same
    encoded = [value.encode("utf-8", "surrogatepass") for value in values]
    update(np.asarray([len(encoded), *map(len, encoded)], dtype="<i8").tobytes())
    update(b"".join(encoded))

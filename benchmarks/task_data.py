"""The loaded data of one task: its parts, its texts as mteb hands them on, a hash of the content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

Role = Literal["text", "query", "document"]


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
    if isinstance(data, dict):
        yield "query", data["queries"]["id"], data["queries"].remembered(query_texts)
        yield "document", data["corpus"]["id"], data["corpus"].remembered(document_texts)
        return
    for column, kind in zip(task.column_names, (task.input1_prompt_type, task.input2_prompt_type), strict=True):
        rows = list(data[column])
        yield kind.value if kind else "text", [f"{column} of row {i}" for i in range(len(rows))], rows


def query_texts(queries: Any) -> list[str]:
    """Each query as a model reads it: with its instruction, if there is one."""
    from mteb._create_dataloaders import _retrieval_texts
    from mteb.types import PromptType

    return list(_retrieval_texts(queries, PromptType.query)[:])


def document_texts(corpus: Any) -> list[str]:
    """Each document as a model reads it: behind its title, if there is one."""
    from mteb._create_dataloaders import _corpus_to_dict

    # mteb's function row by row: its map over the data set would keep each text twice more
    columns = [name for name in ("id", "title", "text") if name in corpus.column_names]
    rows = zip(*(corpus[name] for name in columns), strict=True)
    return [_corpus_to_dict(dict(zip(columns, row, strict=True)))["text"] for row in rows]


def replace(task: Any, subset: str, split: str, data: Any) -> None:
    """Puts other data in the place of one subset and split."""
    if subset not in task.dataset and subset == "default":
        task.dataset[split] = data
    else:
        task.dataset[subset][split] = data


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

"""Parts of an STS task: the sub-corpora of STS12 to STS16, the test part of SICK, and correlations over them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Num

from fusebench.benchmarks import hub_layout, task_data
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.errors import InputError

Aggregation = Literal["all", "mean", "wmean"]


def aggregated(
    gold: Float[np.ndarray, " pairs"],
    similarity: Num[np.ndarray, " pairs"],
    parts: Sequence[str],
    how: Aggregation,
) -> float:
    """Spearman's correlation of a task that is made of parts, as SentEval names the three ways.

    Args:
        gold: human scores.
        similarity: cosines.
        parts: the part that each pair is from.
        how: `all`: one correlation over all pairs; `mean`: the mean of the parts' correlations; `wmean`: the same,
            weighted by the number of pairs.

    Raises:
        InputError: a part has no correlation, because its scores or cosines are constant.
    """
    if how == "all":
        return _spearman(gold, similarity, "all pairs")
    rows: dict[str, list[int]] = defaultdict(list)
    for row, part in enumerate(parts):
        rows[part].append(row)
    found = [_spearman(gold[own], similarity[own], part) for part, own in rows.items()]
    weights = [len(own) for own in rows.values()] if how == "wmean" else None
    return float(np.average(found, weights=weights))


def _spearman(gold: Float[np.ndarray, " pairs"], similarity: Num[np.ndarray, " pairs"], where: str) -> float:
    from scipy.stats import spearmanr

    if np.ptp(gold) == 0 or np.ptp(similarity) == 0:
        raise InputError(
            f"{where}: its scores or cosines are constant, so there is no correlation; give other pairs."
        )
    return float(spearmanr(gold, similarity)[0])


def sub_corpora(loaded: LoadedTask, data_dir: Path | None) -> tuple[str, ...]:
    """The sub-corpus of each pair: the column `subset` of the folder's test file.

    Raises:
        InputError: the data are not in a folder, or do not say it.
    """
    rows = _rows(loaded, data_dir, "default", "the sub-corpora")
    if [_key(row) for row in rows] != _keys(loaded):
        raise InputError(f"task {loaded.spec.name}: its test file has other pairs than were loaded: run again.")
    names = [str(row.get("subset") or "") for row in rows]
    if not all(names):
        raise InputError(
            f"task {loaded.spec.name}: its test file names no sub-corpus of some pairs: add a column 'subset'."
        )
    return tuple(names)


def semeval_test(loaded: LoadedTask, data_dir: Path | None) -> Bool[np.ndarray, " pairs"]:
    """Which of all pairs of SICK are SemEval 2014's test part: the split `test` of the folder's config `semeval`.

    Of pairs that occur more often, with the same score, as many count as the part holds, the first ones: their
    cosines and scores are equal.

    Raises:
        InputError: the data are not in a folder, do not have that part, or do not hold all of it.
    """
    left = Counter(_key(row) for row in _rows(loaded, data_dir, "semeval", "SemEval's test part"))
    keys = _keys(loaded)
    chosen = np.zeros(len(keys), dtype=bool)
    for row, key in enumerate(keys):
        if left[key] > 0:
            left[key] -= 1
            chosen[row] = True
    if +left:
        raise InputError(
            f"task {loaded.spec.name}: {sum((+left).values())} pairs of SemEval's test part are not among its pairs: "
            "both must be of one release."
        )
    return chosen


def _key(row: dict[str, Any]) -> tuple[str, str, float]:
    return row["sentence1"], row["sentence2"], float(row["score"])


def _keys(loaded: LoadedTask) -> list[tuple[str, str, float]]:
    ((_, _, data),) = task_data.parts(loaded.task)
    columns = (data["sentence1"], data["sentence2"], map(float, data["score"]))
    return list(zip(*columns, strict=True))


def _rows(loaded: LoadedTask, data_dir: Path | None, config: str, what: str) -> list[dict[str, Any]]:
    name = loaded.spec.name
    if data_dir is None or not (data_dir / name).is_dir():
        raise InputError(f"task {name}: {what} are read from its folder: give one below --data-dir.")
    files = hub_layout.data_files(data_dir / name)
    paths = [file.path for file in files if (file.config, file.split) == (config, "test")]
    if not paths and config == "default":  # a folder whose files no header lists
        paths = [file.path for file in files if file.config is None and file.path.name == "test.jsonl"]
    if len(paths) != 1 or paths[0].suffix != ".jsonl":
        raise InputError(
            f"task {name}: {what} are read from one JSONL file, the split 'test' of the config {config!r}: add it."
        )
    try:
        return [json.loads(line) for line in paths[0].read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{paths[0]} cannot be read ({error}): correct it.") from error

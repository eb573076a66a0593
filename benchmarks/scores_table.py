"""Every score of every record as one flat table, for readers who do their own statistics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fusebench.benchmarks.atomic import atomic_write
from fusebench.benchmarks.record import Record, Score

COLUMNS = [
    "spec_id",
    "backbone",
    "backbone_revision",
    "method",
    "task",
    "subset",
    "split",
    "metric",
    "is_main",
    "seed",
    "score",
    "max_length",
    "dtype",
    "regime",
    "train",
    "limit",
]

_ORDER = ["backbone", "backbone_revision", "method", "task", "seed", "spec_id", "split", "subset", "metric"]


def scores_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a score, in an order that depends on nothing but the records.

    Scores are mteb's fractions, unrounded; `seed` and `limit` are nullable integers; `train` is the name of
    the text set that the method was trained on, or empty.
    """
    rows = [_row(record, score) for record in records for score in record.scores]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"seed": "Int64", "limit": "Int64", "score": "float64"})
    return frame.sort_values(_ORDER, kind="stable", na_position="first", ignore_index=True)


def write_scores_csv(records: Iterable[Record], path: Path) -> None:
    """Writes `scores_frame` as CSV; Python's `float` reads every score back exactly.

    Raises:
        InputError: the disk refused; the old file is as it was.
    """
    frame = scores_frame(records)
    frame["is_main"] = ["true" if is_main else "false" for is_main in frame["is_main"]]
    atomic_write(path, to_csv(frame))


def to_csv(frame: pd.DataFrame) -> str:
    """CSV text in which no cell is a formula to a spreadsheet."""
    safe = frame.copy()
    safe.columns = pd.Index([defused(str(name)) for name in frame.columns])
    for position in range(frame.shape[1]):
        column = frame.iloc[:, position]
        if not pd.api.types.is_numeric_dtype(column):
            safe.isetitem(position, [defused(str(cell)) for cell in column])
    return str(safe.to_csv(index=False, lineterminator="\n"))


def defused(text: str) -> str:
    """`text`, after a single quote if a spreadsheet would run it as a formula; numbers stay numbers."""
    number = re.fullmatch(r"-\d+(\.\d+)?", text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) and not number else text


def _row(record: Record, score: Score) -> list[object]:
    spec = record.spec
    return [
        record.spec_id,
        spec.backbone.name,
        spec.backbone.revision,
        spec.method.name,
        spec.task.name,
        score.subset,
        score.split,
        score.metric,
        score.is_main,
        spec.seed,
        score.value,
        spec.max_length,
        spec.dtype,
        spec.regime,
        spec.train.name if spec.train else "",
        spec.limit,
    ]

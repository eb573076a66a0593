"""Every score of every record as one flat table, for readers who do their own statistics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from fusebench.benchmarks.atomic import atomic_write
from fusebench.benchmarks.board_tests import ScoreWithInterval
from fusebench.benchmarks.record import Overlap, Record, Score, Training, TrainingSpec

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
    "low",
    "high",
    "low_clusters",
    "high_clusters",
    "max_length",
    "dtype",
    "regime",
    "train",
    "limit",
    "fit",
    "train_kinds",
    "train_rows",
    "epochs",
    "steps",
    "batch_size",
    "learning_rate",
    "learning_rate_new",
    "trials",
    "dev",
    "weights_sha256",
    "updates",
    "examples",
    "training_seconds",
    "chosen_learning_rate",
    "chosen_learning_rate_new",
    "best_update",
    "dev_score",
    "texts",
    "known_texts",
    "pairs",
    "pairs_both_known",
    "main_score_without",
]

_INTEGERS = [
    *["seed", "limit", "epochs", "steps", "batch_size", "trials", "updates", "examples", "best_update"],
    *["texts", "known_texts", "pairs", "pairs_both_known"],
]
_FLOATS = [
    *["low", "high", "low_clusters", "high_clusters"],
    *["learning_rate", "learning_rate_new", "training_seconds", "chosen_learning_rate", "chosen_learning_rate_new"],
    *["dev_score", "main_score_without"],
]

_ORDER = ["backbone", "backbone_revision", "method", "task", "seed", "spec_id", "split", "subset", "metric"]


def scores_frame(records: Iterable[Record], intervals: Mapping[str, ScoreWithInterval] | None = None) -> pd.DataFrame:
    """One row a score, in an order that depends on nothing but the records.

    Scores are mteb's fractions, unrounded; numbers that a cell may lack are nullable. `low` to `high` is the 95 %
    interval of a main score over items, where the cell was tested, `low_clusters` to `high_clusters` that over
    clusters of items that share texts; of a task with several main scores it is known of their mean only. `train`,
    `train_kinds` and `train_rows` say, for each objective in order, what it was trained on, joined by `+`. The
    training, the overlap of a task with it and `main_score_without` belong to the record and repeat with each score.
    """
    known = intervals or {}
    rows = [_row(record, score, known.get(record.spec_id)) for record in records for score in record.scores]
    types = {"score": "float64", **dict.fromkeys(_INTEGERS, "Int64"), **dict.fromkeys(_FLOATS, "Float64")}
    frame = pd.DataFrame(rows, columns=COLUMNS).astype(types)
    return frame.sort_values(_ORDER, kind="stable", na_position="first", ignore_index=True)


def write_scores(
    records: Iterable[Record], out: Path, intervals: Mapping[str, ScoreWithInterval] | None = None
) -> list[Path]:
    """Writes `scores_frame` as `scores.csv`, where Python's `float` reads every score back exactly, and as Parquet.

    Raises:
        InputError: the disk refused; the old files are as they were.
    """
    frame = scores_frame(records, intervals)
    atomic_write(out / "scores.parquet", frame.to_parquet(index=False, compression="zstd"))
    frame["is_main"] = ["true" if is_main else "false" for is_main in frame["is_main"]]
    atomic_write(out / "scores.csv", to_csv(frame))
    return [out / "scores.csv", out / "scores.parquet"]


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
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) and not number else text


def _row(record: Record, score: Score, interval: ScoreWithInterval | None) -> list[object]:
    spec = record.spec
    trained_on = spec.train.rows if spec.train else ()
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
        *_interval(record, score, interval),
        spec.max_length,
        spec.dtype,
        spec.regime,
        "+".join(one.name for one in trained_on),
        spec.limit,
        spec.fit.name if spec.fit else "",
        "+".join(one.kind for one in trained_on),
        "+".join(str(one.count) for one in trained_on),
        *_asked(spec.train),
        spec.weights_sha256 or "",
        *_took(record.training),
        *_overlap(record.overlap),
    ]


def _interval(record: Record, score: Score, interval: ScoreWithInterval | None) -> list[object]:
    if interval is None or not score.is_main or sum(one.is_main for one in record.scores) > 1:
        return [None] * 4
    clusters = interval.clusters
    return [interval.items.low, interval.items.high, clusters and clusters.low, clusters and clusters.high]


def _asked(train: TrainingSpec | None) -> list[object]:
    if train is None:
        return [None, None, None, None, None, None, ""]
    rates = (train.learning_rate, train.learning_rate_new)
    dev = train.dev.name if train.dev else ""
    return [train.epochs, train.steps, train.batch_size, *rates, train.trials, dev]


def _took(training: Training | None) -> list[object]:
    if training is None:
        return [None] * 7
    rates = (training.learning_rate, training.learning_rate_new)
    best = (training.best_update, training.dev_score)
    return [training.updates, training.examples, training.seconds, *rates, *best]


def _overlap(overlap: Overlap | None) -> list[object]:
    if overlap is None:
        return [None] * 5
    pairs = (overlap.pairs, overlap.pairs_both_known)
    return [overlap.texts, overlap.known_texts, *pairs, overlap.main_score_without]

"""The rows that the best weights of a training, and its best trial, are chosen on."""

from __future__ import annotations

from pathlib import Path

from fusebench.errors import InputError
from fusebench.study.training_data import RowSource, TrainRows


def load_dev(name: str, data_dir: Path | None, limit: int | None = None) -> TrainRows:
    """Dev rows by name or file, of the kind that can be judged best: scored pairs, then triplets, then pairs.

    Scored pairs are judged by Spearman's correlation of the cosines with the labels; triplets and pairs by the mean
    reciprocal rank of each row's positive among the positives of all rows.

    Args:
        name: `stsb-dev`, any other name that `--train` takes, or a file.
        data_dir: where named sets lie.
        limit: keep the first rows; None keeps all.

    Raises:
        InputError: if there is no such set, or its rows cannot be judged.
    """
    source = RowSource([name], data_dir, limit, flag="--dev")
    reader = "the choice of the best weights, which must know what belongs together,"
    rows = source.rows(("scored-pairs", "triplets", "pairs"), reader=reader)
    check_dev(rows)
    return rows


def check_dev(rows: TrainRows) -> None:
    """Refuses rows on which every method would be judged alike.

    Raises:
        InputError: if there are fewer than three scored pairs, or all have one label, or only one positive.
    """
    given = f"--dev {rows.spec.name}"
    if rows.labels is not None:
        if rows.spec.count < 3:
            raise InputError(
                f"{given}: {rows.spec.count} scored pairs are too few for a correlation; give at least 3."
            )
        if len(set(rows.labels)) == 1:
            raise InputError(f"{given}: all {rows.spec.count} pairs have one score, so no correlation exists.")
    elif len(set(rows.columns[1])) < 2:
        raise InputError(f"{given}: there is one positive, so nothing to rank it among; give more rows.")

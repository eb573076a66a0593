"""Rebuilds scores.csv and every board of a results folder from its records."""

from __future__ import annotations

from pathlib import Path

from fusebench.benchmarks.board_files import write_boards
from fusebench.benchmarks.leaderboard import Board, build_boards
from fusebench.benchmarks.scores_table import write_scores_csv
from fusebench.benchmarks.store import Store


def rebuild(store: Store) -> tuple[list[Board], list[Path]]:
    """The boards and where they were written.

    Raises:
        InputError: if the folder cannot be written.
    """
    records = store.records()
    write_scores_csv(records, store.out / "scores.csv")
    boards = build_boards(records, store.suites())
    return boards, write_boards(boards, store.out)

"""Rebuilds the tables of all scores and every board of a results folder from its records and their tests."""

from __future__ import annotations

from pathlib import Path

from fusebench.benchmarks.board_files import write_boards
from fusebench.benchmarks.board_tests import read_tests, record_intervals
from fusebench.benchmarks.leaderboard import Board, build_boards
from fusebench.benchmarks.lock import locked
from fusebench.benchmarks.scores_table import write_scores
from fusebench.benchmarks.store import Store


def rebuild(store: Store) -> tuple[list[Board], list[Path]]:
    """The boards and where they were written.

    Of several processes the last one to write has read the records of all, since each writes its own before.

    Raises:
        InputError: if the folder cannot be written.
    """
    store.require_no_way_out()
    with locked(store.out / "locks" / "boards.lock"):
        records = store.records()
        tests, _ = read_tests(store.out)
        write_scores(records, store.out, record_intervals(tests))
        boards = build_boards(records, store.suites(), tests)
        return boards, write_boards(boards, store.out)

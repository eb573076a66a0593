"""Figures for papers of every board of a results folder."""

from __future__ import annotations

from pathlib import Path

from fusebench.benchmarks.atomic import disk_error
from fusebench.benchmarks.board_files import file_names
from fusebench.benchmarks.board_rows import method_rows
from fusebench.benchmarks.board_tests import read_tests
from fusebench.benchmarks.leaderboard import build_boards
from fusebench.benchmarks.paper_figures import FORMATS, write_figures
from fusebench.benchmarks.report_board import labelled_rows
from fusebench.benchmarks.report_logs import read_curves
from fusebench.benchmarks.report_training import curves_of, layer_weights
from fusebench.benchmarks.store import Store


def write_all_figures(store: Store) -> list[Path]:
    """Writes the figures of each board below `OUT/figures`, and removes those of boards that are no more.

    Raises:
        InputError: matplotlib is not installed, or the disk refused.
    """
    records = store.records()
    by_id = {record.spec_id: record for record in records}
    boards = build_boards(records, store.suites(), read_tests(store.out)[0])
    curves, _ = read_curves(store.out / "training")
    written = []
    for board, name in zip(boards, file_names(boards), strict=True):
        labelled = labelled_rows(method_rows([by_id[spec_id] for spec_id in sorted(board.spec_ids)]))
        weights = {label: held for label, own in curves_of(labelled, curves).items() if (held := layer_weights(own))}
        written += write_figures(board, labelled, weights, store.out / "figures" / board.folder / name)
    for path in sorted((store.out / "figures").rglob("*")):
        if path.suffix[1:] in FORMATS and path not in written:
            try:
                path.unlink()
            except OSError as error:
                raise disk_error("remove", path, error) from error
    return written

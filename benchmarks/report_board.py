"""A board as the page shows it: cells with what sorts them, and the records behind each row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fusebench.benchmarks.board_markup import LEFT
from fusebench.benchmarks.board_rows import Row, row_labels, training_free
from fusebench.benchmarks.board_significance import GROUP, INTERVAL
from fusebench.benchmarks.board_table import Estimate, Table
from fusebench.benchmarks.leaderboard import Board
from fusebench.benchmarks.record import Record

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Column:
    """A column: its name, and `text`, `rank`, `score`, `average` or `number`."""

    name: str
    kind: str


@dataclass(frozen=True)
class Cell:
    """A cell: what is read, what sorts it (None: always last), and how near it is to the highest of
    its column, 0 to 1."""

    text: str
    spread: str
    order: float | str | None
    height: float | None


@dataclass(frozen=True)
class Line:
    """A row: its method, how it was trained, whether it stands for another, its cells, its records by task."""

    label: str
    regime: str
    is_twin: bool
    cells: tuple[Cell, ...]
    spec_ids: tuple[str, ...]


@dataclass(frozen=True)
class BoardTable:
    """The leaderboard of a board, averages before tasks."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    @property
    def regimes(self) -> list[str]:
        """The regimes that rows can be filtered by."""
        return sorted({line.regime for line in self.lines})

    @property
    def has_twins(self) -> bool:
        """Whether any row orders all pairs as another does."""
        return any(line.is_twin for line in self.lines)


@dataclass(frozen=True)
class SideTable:
    """A table beside the leaderboard; its first column is the method."""

    columns: tuple[Column, ...]
    lines: tuple[tuple[Cell, ...], ...]


def text_cell(text: str) -> Cell:
    """A cell of words."""
    return Cell(text, "", text, None)


def estimate_cell(value: Estimate | None, write: Callable[[float], str]) -> Cell:
    """A cell of a mean and, where there are several seeds, its spread; None is empty."""
    if value is None:
        return Cell("", "", None, None)
    return Cell(write(value.mean), "" if math.isnan(value.spread) else write(value.spread), value.mean, None)


def side_table(table: Table | None) -> SideTable | None:
    """The table as the page shows it; None stays None."""
    if table is None:
        return None
    columns = tuple(Column(str(name), "text" if name in LEFT else "number") for name in table.values.columns)
    cells = [table_cells(table, column.name, column.kind) for column in columns]
    return SideTable(columns, tuple(zip(*cells, strict=True)))


def labelled_rows(rows: list[Row]) -> list[tuple[str, Row]]:
    """Rows with the labels that their board gives them."""
    return list(zip(row_labels(rows), rows, strict=True))


def scores_by_label(board: Board) -> dict[str, dict[str, float]]:
    """The scores and averages of each row; NaN where one is missing."""
    names = [*board.tasks, *board.averages]
    columns = [[float(value) for value in board.table[name]] for name in names]
    labels = [str(label) for label in board.table["method"]]
    return {
        label: dict(zip(names, own, strict=True))
        for label, own in zip(labels, zip(*columns, strict=True), strict=True)
    }


def board_table(board: Board, labelled: Sequence[tuple[str, Row]]) -> BoardTable:
    """The rows in the board's order."""
    by_label = dict(labelled)
    names = [str(name) for name in board.table.columns]
    costs = [name for name in names if name in ("seeds", "dims", "params added", "encode s")]
    columns = [Column("rank", "rank"), Column("method", "text")]
    averages = [Column(name, "average") for name in board.averages[::-1]]
    tested = [Column(name, "text") for name in (INTERVAL, GROUP) if name in names]  # of the first average
    columns += averages[:1] + tested + averages[1:]
    columns += [Column(name, "score") for name in board.tasks] + [Column(name, "number") for name in costs]
    cells = {column.name: table_cells(board.scores, column.name, column.kind) for column in columns}
    lines = []
    for position, label in enumerate(str(label) for label in board.table["method"]):
        row = by_label[label]
        own = [cells[column.name][position] for column in columns]
        lines.append(
            Line(
                label=label,
                regime=regime_of(row),
                is_twin=own[0].text.startswith("="),
                cells=tuple(own),
                spec_ids=tuple(
                    r.spec_id for task in board.tasks for r in sorted(row.cells.get(task, []), key=_by_seed)
                ),
            )
        )
    return BoardTable(tuple(columns), tuple(lines))


def table_cells(table: Table, name: str, kind: str) -> list[Cell]:
    """The cells of a column; rows come sorted by rank, so their places sort that column."""
    values = list(table.values[name])
    spreads = list(table.spreads[name]) if name in table.spreads else [math.nan] * len(values)
    known = [value for value in values if isinstance(value, float) and not math.isnan(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    cells = []
    for position, (value, spread) in enumerate(zip(values, spreads, strict=True)):
        order: float | str | None = str(value)
        height = None
        text = str(value)
        if isinstance(value, float):
            missing = math.isnan(value)
            order, text = (None, "") if missing else (value, f"{value:.2f}")
            # Cubed: the best are told apart, however low the lowest is.
            height = None if missing or high == low else ((value - low) / (high - low)) ** 3
        elif kind == "rank":
            order = float(position) if text else None
        elif kind != "text":
            found = _NUMBER.match(text)
            order = float(found[0]) if found else None
        cells.append(Cell(text, "" if math.isnan(spread) else f"{spread:.2f}", order, height))
    return cells


def _by_seed(record: Record) -> int:
    return -1 if record.spec.seed is None else record.spec.seed


def regime_of(row: Row) -> str:
    """How a row was trained, in words of the page."""
    spec = row.records[0].spec
    return "training-free" if training_free(spec) else "fine-tuned" if spec.regime == "finetune" else "trained head"
